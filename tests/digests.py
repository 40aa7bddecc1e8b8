"""New digests for files that a test has edited, so that later checks are reached."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from datamodules.store_files import MANIFEST, MANIFEST_DIGEST
from rate.weights import DESCRIPTION, OWN_DIGEST, WEIGHTS, WEIGHTS_DIGEST, sealed


def renew_model(folder: Path) -> None:
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    (folder / DESCRIPTION).write_text(sealed(description | {WEIGHTS_DIGEST: digest}))


def renew_store(folder: Path) -> None:
    """The digest of the manifest; those of arrays are in it."""
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    (folder / MANIFEST_DIGEST).write_text(digest)


def remove_from_model(folder: Path) -> None:
    """Leaves a model as versions without digests wrote it."""
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    del description[WEIGHTS_DIGEST], description[OWN_DIGEST]
    (folder / DESCRIPTION).write_text(json.dumps(description))
