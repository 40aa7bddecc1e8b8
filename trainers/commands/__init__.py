"""What people type: `rate COMMAND`, and the scripts of a clone. `main` finds each by its name."""
