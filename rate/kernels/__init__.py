"""Faster ways to compute what a layer of `rate.nn` computes; tests hold each to that layer."""
