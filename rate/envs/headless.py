"""Choice of a renderer (EGL or OSMesa) for MuJoCo on a machine without a display."""

from __future__ import annotations

import os
import subprocess
import sys

from rate.errors import ConfigError

_PROBE = "import mujoco; context = mujoco.GLContext(64, 64); context.make_current(); context.free()"
_PROBE_SECONDS = 60


def no_renderer(reason: str) -> ConfigError:
    """The error to raise where nothing can draw, or not what was asked for."""
    return ConfigError(
        f"MuJoCo cannot draw: {reason}. Without a display it needs EGL or OSMesa; on Debian or "
        "Ubuntu run `apt-get install libegl1 libgl1-mesa-dri` (or `libosmesa6`). The environment "
        "variable MUJOCO_GL (egl, osmesa or glfw) overrules what is found."
    )


def choose_renderer() -> str:
    """Sets MUJOCO_GL to a renderer that works without a display, unless the user has set it.

    A try costs a third of a second, in a process of its own, because drivers may crash. Processes
    that are started later inherit the answer.

    Returns:
        The value of MUJOCO_GL.

    Raises:
        ConfigError: If neither EGL nor OSMesa works.
    """
    # Mesa's renderer would start a thread for each core in each process.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    if chosen := os.environ.get("MUJOCO_GL"):
        return chosen
    complaints = []
    for name in ("egl", "osmesa"):
        complaint = _try(name)
        if not complaint:
            os.environ["MUJOCO_GL"] = name
            return name
        complaints.append(f"{name} says {complaint!r}")
    raise no_renderer(", ".join(complaints))


def _try(name: str) -> str:
    """Renders in another process; returns its error message, empty if it worked."""
    try:
        result = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env={**os.environ, "MUJOCO_GL": name},
            capture_output=True,
            text=True,
            check=False,
            timeout=_PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"nothing for {_PROBE_SECONDS} seconds"
    if result.returncode == 0:
        return ""
    return (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
