"""The project's environments: a file is one, and its class `Record` says all of it.

A new one is a file here, presets in `trainers/presets/`, its environment in `rate/envs/` and its
expert in `datamodules/`. No file imports PyTorch or a simulator, so that a command line is refused
at once.
"""

from pkgutil import iter_modules

NAMES = tuple(sorted(module.name for module in iter_modules(__path__)))
"""Of all of them."""
