"""Training, evaluation and configuration, on Lightning."""

from __future__ import annotations

import os

# Lightning reads its rank from these at import and fails if one is not a number. `trainers.launch`
# decides whether they apply to a run.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")

_odd = {name: os.environ[name] for name in _RANKS if not os.environ.get(name, "0").isdecimal()}
if _odd:
    for _name in _odd:
        del os.environ[_name]
    import lightning.fabric.utilities.rank_zero  # noqa: F401

    os.environ.update(_odd)
