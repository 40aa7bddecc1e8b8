"""Names, import paths and entry points, and what is said where there is nothing behind them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rate.errors import ConfigError
from rate.messages import did_you_mean
from rate.registry import Registry, import_path

OWN = {"ordered": "collections:OrderedDict", "counter": "collections:Counter"}


def is_dict(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, dict)


@pytest.fixture
def registry() -> Registry[type]:
    return Registry("model.table", "rate.tables", OWN, is_dict, "a subclass of dict")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, with a module and the metadata of an installed package."""
    (tmp_path / "their_tables.py").write_text(
        "class Mine(dict):\n    class Inner(dict):\n        pass\n"
    )
    (tmp_path / "broken_tables.py").write_text("import a_package_nobody_has\n")
    (tmp_path / "wrong_tables.py").write_text("from collections import Nothing\n")
    install(tmp_path, "their-tables", "mine = their_tables:Mine")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def install(folder: Path, name: str, entry: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rate.tables]\n{entry}\n")


def test_our_own_names(registry: Registry[type]) -> None:
    assert registry.get("ordered").__name__ == "OrderedDict"
    assert registry.names() == ["ordered", "counter"]


def test_import_paths_and_entry_points(registry: Registry[type], package: Path) -> None:
    assert registry.get("their_tables:Mine").__qualname__ == "Mine"
    assert registry.get("their_tables:Mine.Inner").__qualname__ == "Mine.Inner"
    assert registry.get("mine") is registry.get("their_tables:Mine")
    assert registry.names() == ["ordered", "counter", "mine"]


def test_an_unknown_name_is_told_the_nearest(registry: Registry[type], package: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.table=orderd .*Did you mean ordered\?.* mine\."):
        registry.get("orderd")


def test_two_packages_with_one_name(registry: Registry[type], package: Path) -> None:
    install(package, "other-tables", "mine = collections:Counter")
    with pytest.raises(ConfigError, match=r"several packages: collections:Counter, their_tables:M"):
        registry.get("mine")


def test_ours_come_first(registry: Registry[type], package: Path) -> None:
    install(package, "other-tables", "ordered = their_tables:Mine")
    assert registry.get("ordered").__name__ == "OrderedDict"
    assert registry.names() == ["ordered", "counter", "mine"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nobody_has_this.cells:Mine", r"no module 'nobody_has_this'\. Install its package, or"),
        ("their_tables.inner:Mine", r"no module 'their_tables\.inner'"),
        ("broken_tables:Mine", r"importing 'broken_tables' failed: No module named 'a_package_"),
        ("wrong_tables:Mine", r"importing 'wrong_tables' failed: cannot import name 'Nothing'"),
        ("their_tables:Mnie", r"their_tables has no attribute 'Mnie'\. Did you mean Mine\?"),
        ("their_tables:Mine.Iner", r"Mine has no attribute 'Iner'\. Did you mean Inner\?"),
        ("their_tables:", "is not an import path; write module:Attribute"),
        (":Mine", "is not an import path"),
        ("../their_tables:Mine", "is not an import path"),
        ("os:system", r"is <built-in function system>; it must be a subclass of dict"),
    ],
)
def test_what_is_missing_is_named(
    registry: Registry[type], package: Path, path: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.get(path)


def test_an_error_of_the_module_itself_is_not_hidden(package: Path) -> None:
    (package / "raising_tables.py").write_text("raise KeyError('its own')\n")
    with pytest.raises(KeyError, match="its own"):
        import_path("raising_tables:Mine", "model.table")


def test_the_working_directory_is_looked_in_last(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "only_here.py").write_text("class Mine(dict):\n    pass\n")
    (folder / "json.py").write_text("raise AssertionError('not this one')\n")
    code = (
        "import sys; sys.path = [p for p in sys.path if p]\n"
        "from rate.registry import import_path\n"
        "print(import_path('only_here:Mine', 's'), import_path('json:loads', 's'))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "only_here.Mine" in done.stdout


def test_did_you_mean() -> None:
    assert did_you_mean("rat", ["rate", "dt"], "--") == " Did you mean --rate?"
    assert did_you_mean("zzz", ["rate", "dt"]) == ""
