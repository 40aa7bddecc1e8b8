"""Registries: look up classes by name, import path (`module:Attribute`) or entry point.

A user's class needs no change in this repository. `my_package.cells:MyCell` names an attribute of a
module that can be imported; a package that registers it in an entry-point group gives it a short
name, in its `pyproject.toml`:

    [project.entry-points."rate.backbones"]
    my_cell = "my_package.cells:MyCell"
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from rate.errors import ConfigError
from rate.messages import did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """A registry of objects of one kind, imported when they are looked up.

    Args:
        setting: The setting that holds such a name, for messages, for example `model.backbone`.
        group: The entry-point group of packages that bring more of them.
        own: Ours by name: import paths, which are imported at lookup, or the objects themselves.
        accepts: Whether what was found is of this kind; checked before anything is called.
        kind: What that is, for messages, for example `a subclass of rate.backbones.Backbone`.
    """

    def __init__(
        self,
        setting: str,
        group: str,
        own: Mapping[str, str | T],
        accepts: Callable[[Any], bool],
        kind: str,
    ) -> None:
        self.setting, self.group, self.kind = setting, group, kind
        self._own, self._accepts = dict(own), accepts

    def names(self) -> list[str]:
        """Ours in their order, then those of installed packages."""
        foreign = {point.name for point in metadata.entry_points(group=self.group)}
        return [*self._own, *sorted(foreign - set(self._own))]

    def own_names(self) -> list[str]:
        """Ours, in their order."""
        return list(self._own)

    def get(self, name: str) -> T:
        """What a name or an import path stands for.

        Ours come before those of packages that have the same name.

        Args:
            name: A registered name, or `module:Attribute`.

        Raises:
            ConfigError: If there is none of this name (the message names the nearest), if two
                packages register it, if its module cannot be imported, or if what is found is not
                of the registry's kind.
        """
        found: T | str = name if ":" in name else self._own.get(name) or self._registered(name)
        if isinstance(found, str):
            found = import_path(found, self.setting)
        if not self._accepts(found):
            raise ConfigError(f"{self.setting}={name} is {found!r}; it must be {self.kind}.")
        return cast(T, found)

    def foreign(self) -> list[T]:
        """Those of installed packages.

        Raises:
            ConfigError: If one of them cannot be had; see `get`.
        """
        return [self.get(name) for name in self.names() if name not in self._own]

    def _registered(self, name: str) -> str:
        """The import path that an installed package registers under a name."""
        points = metadata.entry_points(group=self.group, name=name)
        paths = sorted({point.value for point in points})
        if not paths:
            known = self.names()
            raise ConfigError(
                f"{self.setting}={name} is not known.{did_you_mean(name, known)} There are: "
                f"{', '.join(known)}. Your own is named by its import path, module:Attribute."
            )
        if len(paths) > 1:
            raise ConfigError(
                f"{self.setting}={name} is registered by several packages: {', '.join(paths)}. "
                "Write the import path of the one that you mean."
            )
        return paths[0]


def import_path(path: str, setting: str) -> Any:
    """The attribute that `module:Attribute` names, for example `my_package.cells:MyCell`.

    Modules are looked for where Python does, and then in the working directory, which an installed
    command does not look in by itself. An error of the module's own code is not caught.

    Args:
        path: The import path; the attribute may be dotted.
        setting: The setting that has it, for messages.

    Raises:
        ConfigError: If the path has another form, or the module, one that it imports, or the
            attribute is missing. The message says which.
    """
    module_name, _, attribute = path.partition(":")
    parts = [*module_name.split("."), *attribute.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise ConfigError(
            f"{setting}={path} is not an import path; write module:Attribute, for example "
            "my_package.cells:MyCell."
        )
    found: Any = import_module(module_name, f"{setting}={path}")
    for part in attribute.split("."):
        if not hasattr(found, part):
            where = getattr(found, "__name__", repr(found))
            near = did_you_mean(part, [name for name in dir(found) if not name.startswith("_")])
            raise ConfigError(f"{setting}={path}: {where} has no attribute '{part}'.{near}")
        found = getattr(found, part)
    return found


def import_module(name: str, setting: str) -> ModuleType:
    """A module, also of the working directory; see `import_path`.

    Args:
        name: Of the module.
        setting: The setting and its value, for messages.

    Raises:
        ConfigError: If it, or one that it imports, is missing.
    """
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last, so that it hides no installed module
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise ConfigError(
                f"{setting}: there is no module '{missing}'. Install its package, or run from the "
                "folder that holds it, or put that folder into PYTHONPATH."
            ) from error
        raise ConfigError(f"{setting}: importing '{name}' failed: {error}.") from error
