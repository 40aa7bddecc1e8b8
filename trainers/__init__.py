"""Training, evaluation and configuration, on Lightning."""
