"""Commands that are run from a clone: a short file for each, and tools for developers."""
