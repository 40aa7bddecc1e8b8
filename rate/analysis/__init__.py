"""A look inside trained models: recorded episodes, and their memory tokens from step to step."""
