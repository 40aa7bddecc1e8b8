"""The measurements of `scripts/benchmark.py`, and their baselines."""
