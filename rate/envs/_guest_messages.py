"""The messages between this package and the simulators of another Python.

This file is also sent to that Python, which has NumPy and no package of ours: it imports nothing
else, and is written in the syntax of Python 3.8.

A message is the length of its JSON and that of its arrays (network order, 4 and 8 bytes), the JSON,
and the arrays one behind the other, of which `arrays` in the JSON gives name, dtype and shape. The
requests are those of `rate.envs._env_service`:

    {"ask": "make", "protocol": 1, "env": NAME, "settings": {}, "max_steps": N, "rows": [0, 1]}
    {"ask": "reset", "seeds": [[ROW, SEED]]}            {"ask": "step", "rows": [0]}, and `actions`
    {"ask": "render", "row": 0}

An answer is `{"done": ...}` with arrays, or `{"error": TRACEBACK}`; any number of `{"alive": true}`
may come before it.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

PROTOCOL = 1
SIZES = struct.Struct("!IQ")
ROOM = 1 << 20  # bytes on their way: some frames
KINDS = "biuf"  # of the numbers in arrays


def encode(message: dict[str, Any], arrays: dict[str, Any] | None = None) -> list[Any]:
    """The parts of a message, which are to be sent one behind the other."""
    parts = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    described = [[name, array.dtype.str, list(array.shape)] for name, array in parts.items()]
    text = json.dumps({**message, "arrays": described}).encode()
    flat: list[Any] = [array.reshape(-1).view(np.uint8) for array in parts.values()]
    data = [memoryview(array) for array in flat]
    return [SIZES.pack(len(text), sum(map(len, data))) + text, *data]


def decode(text: bytes, data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The message and the arrays of what follows its sizes.

    Raises:
        ValueError: If that is no message.
    """
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError("a message is no table")
    arrays, offset = {}, 0
    try:
        for name, kind, shape in message.pop("arrays"):
            dtype = np.dtype(kind)
            if dtype.kind not in KINDS:
                raise ValueError(f"an array of {kind}")
            count = int(np.prod(shape, dtype=np.int64))
            arrays[name] = np.frombuffer(data, dtype, count, offset).reshape(shape)
            offset += count * dtype.itemsize
    except (KeyError, TypeError) as error:
        raise ValueError(f"its arrays are not described: {error!r}") from error
    return message, arrays


def space_to_dict(space: Any) -> dict[str, Any]:
    """A space in the form that `rate.envs.spec` reads, whichever library it is of."""
    kind = type(space).__name__
    if kind == "Box":
        bounds = {"low": _bound(space.low), "high": _bound(space.high)}
        return {"type": kind, "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if kind == "Discrete":
        return {"type": kind, "n": int(space.n), "start": int(getattr(space, "start", 0))}
    if kind == "MultiDiscrete":
        sizes = np.asarray(space.nvec)
        start = np.asarray(getattr(space, "start", np.zeros_like(sizes)))
        return {"type": kind, "nvec": sizes.tolist(), "start": start.tolist()}
    if kind == "MultiBinary":
        alone = not isinstance(space.n, (tuple, list, np.ndarray))
        return {"type": kind, "n": int(space.n) if alone else [int(size) for size in space.n]}
    if kind == "Dict":
        return {"type": kind, "spaces": {k: space_to_dict(s) for k, s in space.spaces.items()}}
    advice = "; make a Dict of it, whose parts have names" if kind == "Tuple" else ""
    raise ValueError(
        f"the space {kind} is not supported; use Box, Discrete, MultiDiscrete, MultiBinary or "
        f"Dict{advice}"
    )


def _bound(bound: Any) -> Any:
    flat = np.unique(bound).tolist()
    values = flat if len(flat) == 1 else np.asarray(bound).ravel().tolist()
    plain = [value if np.isfinite(value) else str(value) for value in values]
    return plain[0] if len(plain) == 1 else plain


def scalars(info: dict[str, Any]) -> dict[str, Any]:
    """The numbers and truth values in `info`, as Python's own."""
    kinds = (bool, int, float, np.bool_, np.integer, np.floating)
    return {
        str(key): value.item() if isinstance(value, np.generic) else value
        for key, value in info.items()
        if isinstance(value, kinds)
    }
