"""The project's environments: one file each, whose class `Record` describes the environment.

A new environment needs a file here, presets in `trainers/presets/`, its implementation in
`rate/envs/` and its expert in `datamodules/`. No file imports PyTorch or a simulator, so that
invalid command lines are reported quickly.
"""

from pkgutil import iter_modules

NAMES = tuple(sorted(module.name for module in iter_modules(__path__)))
"""Of all of them."""
