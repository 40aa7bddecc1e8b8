"""What `scripts/benchmark.py` measures, and what it measures against."""
