"""Tests one part of the trainer: PyTorch and its libraries, or an environment.

The command `doctor` runs each test in a worker process, because a broken simulator or driver can
crash its process or hang.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rate.advice import install
from rate.errors import UserError
from trainers.registry import ENVIRONMENTS, find_environment, get_environment

TRAINER = "trainer"  # the part that is not an environment
LENGTH = 51  # of the test episodes; valid in every environment
STEPS, SECONDS = 50, 0.3  # least number of steps and least duration of a measurement

# Extras that are not environments: the package and its purpose.
OPTIONAL = {
    "arrow": ("pyarrow", "Parquet and Arrow files"),
    "lerobot": ("av", "videos of LeRobot's data sets"),
    "minari": ("huggingface_hub", "downloads of Minari's data sets"),
    "wandb": ("wandb", "logging to Weights & Biases"),
}

# On Debian and Ubuntu; libosmesa6 is an alternative.
_RENDERER = "apt-get install -y --no-install-recommends libegl1 libgl1-mesa-dri"


@dataclass
class Finding:
    """The result of testing a part of the trainer.

    Attributes:
        name: `trainer`, or the environment's name.
        works: Whether the part works on this machine.
        problem: The reason if it does not.
        fix: The command that should fix the problem, or empty; `extra:NAME` stands for the command
            that installs that extra, `extra:` for the one that installs the trainer.
        facts: Further facts by title, in the order of display.
    """

    name: str
    works: bool = False
    problem: str = ""
    fix: str = ""
    facts: dict[str, str] = field(default_factory=dict)


class Problem(Exception):
    """A part does not work; the arguments are the problem and the fix."""


def probe(name: str) -> Finding:
    """Test a part in this process, which may crash or hang. Returns the result.

    Args:
        name: `trainer`, or an environment.
    """
    finding = Finding(name)
    try:
        describe_trainer(finding.facts) if name == TRAINER else try_environment(name, finding.facts)
        finding.works = True
    except Problem as problem:
        finding.problem, finding.fix = problem.args
    except UserError as error:
        finding.problem = str(error)
    except ModuleNotFoundError as error:
        extra = find_environment(name).extra if name in ENVIRONMENTS else ""
        finding.problem, finding.fix = f"{error.name} is not installed", f"extra:{extra}"
    except Exception as error:  # noqa: BLE001 (any error is a finding)
        finding.problem = f"{type(error).__name__}: {error}"
    return finding


def describe_trainer(facts: dict[str, str]) -> None:
    """Add the facts about training: Python, hardware, libraries and optional packages."""
    facts["Python"] = f"{platform.python_version()} ({sys.executable})"
    facts["system"] = platform.platform()
    facts["cores"] = _cores()
    facts["memory"] = _memory()
    facts["disk"] = f"{shutil.disk_usage('.').free / 1e9:.0f} GB free in {Path.cwd()}"
    import lightning
    import torch

    # The version of the module has the build (CPU or CUDA), that of the metadata may not.
    facts["PyTorch"] = f"{torch.__version__}, {torch.get_num_threads()} threads"
    facts["CUDA"] = _cuda(torch)
    torch.ones(2, 2) @ torch.ones(2, 2)
    facts["Lightning"] = lightning.__version__
    facts["others"] = _versions("gymnasium", "minari", "numpy")
    for extra, (package, what) in OPTIONAL.items():
        facts[extra] = _optional(extra, package, what)
    facts["ffmpeg"] = shutil.which("ffmpeg") or "none: videos are GIFs, not MP4 files"


def _optional(extra: str, package: str, what: str) -> str:
    """Returns whether the package of an extra works, and what is not possible without it."""
    try:
        import_module(package)
    except ModuleNotFoundError:
        return f"none: no {what}. {install(extra)}"
    except Exception as error:  # noqa: BLE001 (a library that a package needs may be missing)
        return f"{package} is broken ({type(error).__name__}: {error}): no {what}. {install(extra)}"
    return f"{what}, with {_versions(package)}"


def _cuda(torch: Any) -> str:
    if torch.version.cuda is None:
        return "none: this PyTorch is built for the CPU"
    if not torch.cuda.is_available():
        return f"none: PyTorch is built for CUDA {torch.version.cuda}, but sees no device or driver"
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    names = [f"{device.name}, {device.total_memory / 1e9:.0f} GB" for device in found]
    return f"{torch.version.cuda}: " + "; ".join(names)


def _cores() -> str:
    there = os.cpu_count() or 1
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    text = f"{ours} of {there}" if ours < there else str(there)
    try:  # the limit of a container
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        text += f", limited to the work of {int(quota) / int(period):g}"
    except (OSError, ValueError):  # no container, or one without a limit
        pass
    return text


def _memory() -> str:
    try:
        page = os.sysconf("SC_PAGE_SIZE") / 1e9
        total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError):
        return "unknown"
    text = f"{total:.0f} GB, {free:.0f} GB of it unused"
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        text += f", limited to {limit / 1e9:.0f} GB"
    except (OSError, ValueError):
        pass
    return text


def try_environment(name: str, facts: dict[str, str]) -> None:
    """Make an environment as training does, take random steps in it, and add the facts.

    Raises:
        Problem: If it does not run on this machine.
        UserError: If the environment raises one.
    """
    record = find_environment(name)
    needs, extra = record.needs, record.extra
    _check_packages(needs, extra)
    shown = (*needs, "mujoco") if "dm_control" in needs else needs
    facts["packages"] = _versions(*(shown or ("gymnasium", "numpy")))
    facts["draws with"] = next(
        (DRAWS[each]() for each in needs if each in DRAWS), "nothing to draw"
    )
    facts["steps/s"] = f"{measure(name):,.0f}"


def _check_packages(needs: tuple[str, ...], extra: str) -> None:
    missing = [package for package in needs if find_spec(package) is None]
    if missing and extra == "memory-maze" and sys.version_info >= (3, 13):
        raise Problem(
            f"{' and '.join(missing)} not installed: labmaze, which they need, has no wheel for "
            "Python 3.13 or later",
            install("memory-maze", python="3.12"),
        )
    if missing:
        raise Problem(f"{' and '.join(missing)} not installed", f"extra:{extra}")
    if "dm_control" in needs and int(metadata.version("mujoco").split(".")[0]) > 3:
        raise Problem(
            f"mujoco {metadata.version('mujoco')} is installed, and dm_control needs 3",
            f'{sys.executable} -m pip install "mujoco>=3.17.0,<4"',
        )


def _versions(*packages: str) -> str:
    """Returns `name version` of each package, separated by commas."""
    found = []
    for package in packages:
        try:
            found.append(f"{package.replace('_', '-')} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"{package} (version unknown)")
    return ", ".join(found)


def _mujoco_draws() -> str:
    """Returns the OpenGL library and the renderer that MuJoCo draws with.

    Raises:
        Problem: If MuJoCo cannot draw.
    """
    from rate.envs.headless import choose_renderer

    chosen = os.environ.get("MUJOCO_GL")
    try:
        library = choose_renderer()
        import mujoco

        context = mujoco.GLContext(64, 64)
        context.make_current()
        opengl = import_module("OpenGL.GL")  # comes with mujoco
        renderer = opengl.glGetString(opengl.GL_RENDERER)
        context.free()
    except UserError as error:
        raise Problem(str(error), _RENDERER) from error
    except Exception as error:
        # Drivers raise any class: PyOpenGL raises an AttributeError if a library is missing.
        problem = f"MuJoCo cannot draw with MUJOCO_GL={chosen}, {type(error).__name__}: {error}"
        raise Problem(problem, "unset MUJOCO_GL" if chosen else _RENDERER) from error
    if renderer is None:
        raise Problem(f"MuJoCo cannot draw: {library} gives it no OpenGL", "unset MUJOCO_GL")
    name = {"egl": "EGL", "osmesa": "OSMesa", "glfw": "GLFW"}.get(library, library)
    return f"{name}: {renderer.decode(errors='replace')}"


# The renderers of packages; environments of other packages draw nothing that needs one.
DRAWS: dict[str, Callable[[], str]] = {
    "dm_control": _mujoco_draws,
    "minigrid": lambda: "NumPy",
    "vizdoom": lambda: "ViZDoom (in software)",
}


def measure(name: str) -> float:
    """Returns the steps per second of one row with random actions, without resets.

    Raises:
        UserError: If the simulator does not work.
        ValueError: If the simulator does not work.
    """
    vector = get_environment(name, workers=1).make_vector(1, LENGTH)
    try:
        vector.reset(seed=1)
        vector.action_space.seed(1)
        steps, seconds, seed = 0, 0.0, 1
        while steps < STEPS or seconds < SECONDS:
            action = vector.action_space.sample()
            start = time.perf_counter()
            _, _, terminated, truncated, _ = vector.step(action)
            seconds += time.perf_counter() - start
            steps += 1
            if (terminated | truncated).any():
                seed += 1
                vector.reset(seed=seed)
    finally:
        vector.close()
    return steps / seconds
