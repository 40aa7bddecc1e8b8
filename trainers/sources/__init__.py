"""Batches from environments: a model acts while it learns (`data.source=online`).

A batch is what it is offline: windows of K * N steps, `rate.batch.Batch`. Here a window is an
unroll: up to K * N - 1 steps of one episode, which end where the episode does, and the observation
that follows them, from which values are bootstrapped.
"""
