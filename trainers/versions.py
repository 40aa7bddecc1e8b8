"""The versions of code and packages, which have to be the same on all machines of a run."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

_PACKAGES = ("torch", "lightning", "numpy")
_CODE = ("rate", "datamodules", "trainers")
Facts = dict[str, str]  # what must be the same, and what it is here


def versions() -> Facts:
    """Returns the versions of this project's code and of the packages that results depend on."""
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return {"code": code_digest(), "packages": f"Python {platform.python_version()}, {packages}"}


@cache
def code_digest() -> str:
    """Returns the start of the SHA-256 of this project's code, as it is on the disk."""
    digest, root = hashlib.sha256(), Path(__file__).resolve().parents[1]
    for package in _CODE:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
