"""The messages between this package and the simulators of another Python.

The other Python executes this file too. It has NumPy but not this package, so the file imports only
NumPy and the standard library, and uses the syntax of Python 3.8.

A message is the size of its JSON and the size of its arrays in bytes (4 and 8 bytes, network
order), the JSON, and the concatenated arrays. `arrays` in the JSON gives the name, dtype and shape
of each. The requests are those of `rate.envs._env_service`:

    {"ask": "make", "protocol": 1, "env": NAME, "settings": {}, "max_steps": N, "rows": [0, 1]}
    {"ask": "reset", "seeds": [[ROW, SEED]]}            {"ask": "step", "rows": [0]}, and `actions`
    {"ask": "render", "row": 0}

An answer is `{"done": ...}` with arrays, or `{"error": TRACEBACK}`. Any number of heartbeats,
`{"alive": true}`, may precede it.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

PROTOCOL = 1
SIZES = struct.Struct("!IQ")
ROOM = 1 << 20  # size of the socket buffers in bytes: holds several frames
KINDS = "biuf"  # allowed kinds of dtypes: bool, integers, floats


def encode(message: dict[str, Any], arrays: dict[str, Any] | None = None) -> list[Any]:
    """Returns the parts of a message, to be sent in order."""
    parts = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    described = [[name, array.dtype.str, list(array.shape)] for name, array in parts.items()]
    text = json.dumps({**message, "arrays": described}).encode()
    flat: list[Any] = [array.reshape(-1).view(np.uint8) for array in parts.values()]
    data = [memoryview(array) for array in flat]
    return [SIZES.pack(len(text), sum(map(len, data))) + text, *data]


def decode(text: bytes, data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the JSON object and the arrays of a message.

    Args:
        text: The JSON.
        data: The concatenated arrays.

    Raises:
        ValueError: If these are not a valid message.
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
    """Returns the plain form of a space of gymnasium or gym, as `rate.envs.spec` reads it.

    Raises:
        ValueError: If the kind of space is not supported.
    """
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
    """Returns the numbers and Booleans in `info`, as plain Python types."""
    kinds = (bool, int, float, np.bool_, np.integer, np.floating)
    return {
        str(key): value.item() if isinstance(value, np.generic) else value
        for key, value in info.items()
        if isinstance(value, kinds)
    }
