"""Layers that backbones, tokenizers and heads are built of."""
