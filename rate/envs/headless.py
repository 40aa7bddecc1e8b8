"""Off-screen rendering: which of MuJoCo's OpenGL backends works without a display."""

from __future__ import annotations

import os
import subprocess
import sys

from rate.errors import ConfigError

_PROBE = "import mujoco; context = mujoco.GLContext(64, 64); context.make_current(); context.free()"
_PROBE_SECONDS = 60


def no_renderer(reason: str) -> ConfigError:
    """Returns the error for a machine on which MuJoCo cannot render."""
    return ConfigError(
        f"MuJoCo cannot draw: {reason}. Without a display it needs EGL or OSMesa; on Debian or "
        "Ubuntu run `apt-get install libegl1 libgl1-mesa-dri` (or `libosmesa6`). The environment "
        "variable MUJOCO_GL (egl, osmesa or glfw) overrules what is found."
    )


def choose_renderer() -> str:
    """Sets MUJOCO_GL to the first of EGL and OSMesa that works, unless the user has set it.

    Each is tried in a process of its own, because drivers may crash; that takes a third of a
    second. Processes started later inherit the variable.

    Returns:
        The value of MUJOCO_GL.

    Raises:
        ConfigError: If neither EGL nor OSMesa works.
    """
    # Mesa's software renderer starts one thread per core in each process by default.
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
    """Renders with a backend in another process. Returns its error message, or an empty string."""
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
