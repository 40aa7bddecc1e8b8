"""Step-by-step inference: what a backbone computes for a segment, one step at a time.

A decoder computes, at every step, exactly what the backbone's `forward` computes for that step when
it is shown the whole trajectory (to rounding). `RecomputeDecoder` does by calling it again and
suits every backbone; the others keep keys and values, or the state itself, so that the cost of a
step does not grow. Rows of a batch may stand at different steps, and can be reset one by one.
"""
