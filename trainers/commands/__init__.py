"""The commands `rate COMMAND`, one per module; `main` imports the module of the given name."""
