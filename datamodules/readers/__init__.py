"""Readers: each turns one source of data into a stream of episodes."""
