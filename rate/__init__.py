"""Sequence models with memory for offline reinforcement learning, in plain PyTorch."""
