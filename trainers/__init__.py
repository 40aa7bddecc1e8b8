"""Training, evaluation and configuration, on Lightning."""

from __future__ import annotations

import os

# Lightning reads its rank from these when it is imported, and fails where one is no number. What
# they say of a run is for `trainers.launch` to decide.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")

_odd = {name: os.environ[name] for name in _RANKS if not os.environ.get(name, "0").isdecimal()}
if _odd:
    for _name in _odd:
        del os.environ[_name]
    import lightning.fabric.utilities.rank_zero  # noqa: F401

    os.environ.update(_odd)
