"""Autoregressive decoding: what a backbone computes for a segment, one step at a time.

A decoder returns, at every step, what the backbone's `forward` returns for that step under teacher
forcing, that is when it is given the whole trajectory (equal up to rounding). `RecomputeDecoder`
calls `forward` again at every step and works for every backbone; the others have a KV cache, or
carry the recurrent state, so that the cost of a step does not grow. Rows of a batch may be at
different steps, and are reset one by one.
"""
