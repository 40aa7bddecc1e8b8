"""Strict reading of YAML files.

PyYAML keeps the last value of a duplicate key, and accepts infinite numbers and aliases that expand
beyond memory. Here all of these are errors.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from rate.errors import ConfigError
from rate.files import read_small, write_atomic

_MERGE = "tag:yaml.org,2002:merge"
_MOST_BYTES = 1 << 20  # of a file; ours have a few thousand
_MOST_VALUES = 10_000  # maximum number of values in a file with expanded aliases


class _Check:
    """Checks a document for duplicate keys, infinite numbers and excessive aliases."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._sizes: dict[int, int | None] = {}  # by node id; None while it is being visited

    def size(self, node: Node, name: str = "") -> int:
        """Returns the number of values in a node with expanded aliases; raises on errors."""
        known = self._sizes.get(id(node), 0)
        if known is None:
            raise _wrong(f"{name or 'the file'} has itself in it", node)
        if known:
            return known
        self._sizes[id(node)] = None
        parts = self._parts(node, name)
        size = 1 + sum(self.size(part, path) for path, part in parts)
        if size > _MOST_VALUES:
            raise _wrong(f"{name or 'the file'} unfolds to more than {_MOST_VALUES:,} values", node)
        self._sizes[id(node)] = size
        return size

    def _parts(self, node: Node, name: str) -> list[tuple[str, Node]]:
        if isinstance(node, MappingNode):
            return self._values(node, name)
        if isinstance(node, SequenceNode):
            return [(f"{name}[{index}]", item) for index, item in enumerate(node.value)]
        value = self._loader.construct_object(node)
        if isinstance(value, float) and not math.isfinite(value):
            raise _wrong(f"{name or 'the value'} is {value}; it must be a finite number", node)
        return []

    def _values(self, node: MappingNode, name: str) -> list[tuple[str, Node]]:
        seen: dict[Any, int] = {}
        values = []
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                raise _wrong("a key is a plain word", key_node)
            if key_node.tag == _MERGE:
                values.append((name, value_node))
                continue
            key, line = self._loader.construct_object(key_node), key_node.start_mark.line + 1
            path = f"{name}.{key}" if name else str(key)
            if key in seen:
                raise _wrong(f"{path} is said twice, in line {seen[key]} as well", key_node)
            seen[key] = line
            values.append((path, value_node))
        return values


def _wrong(problem: str, node: Node) -> ConstructorError:
    return ConstructorError(None, None, problem, node.start_mark)


def parse_yaml(text: str, source: str) -> Any:
    """Returns the content of a YAML text as plain types.

    Args:
        text: The text.
        source: The name of the source in error messages.

    Raises:
        ConfigError: If it is not valid YAML, or has a duplicate key, an infinite number, or too
            many values.
    """
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Check(loader).size(node)
        return loader.construct_document(node)
    except ConstructorError as error:
        mark = error.problem_mark
        where = "" if mark is None else f" (line {mark.line + 1})"
        raise ConfigError(f"{source}: {error.problem}{where}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not a YAML file: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{source} is nested too deeply to be read.") from error
    except (ValueError, OverflowError) as error:  # too many digits, or an invalid date
        raise ConfigError(f"{source} has a value that cannot be read: {error}.") from error
    finally:
        if loader is not None:
            loader.dispose()


def read_yaml(path: Path) -> Any:
    """Returns the content of a YAML file as plain types.

    Raises:
        ConfigError: If the file cannot be read, or as in `parse_yaml`.
    """
    try:
        text = read_small(path, _MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a YAML file: {error}") from error
    return parse_yaml(text, str(path))


def write_yaml(path: Path, value: Any) -> None:
    """Write YAML atomically, with the keys in their given order."""
    write_atomic(path, yaml.safe_dump(value, sort_keys=False))
