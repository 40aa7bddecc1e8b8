"""What people run from a clone: a short file per command, and what is for developers alone."""
