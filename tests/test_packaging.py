"""The project as a package: pinned versions, imports between floors, metadata."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ["3.11.0", "3.12.0", "3.13.0", "3.14.0"]
PACKAGES = ["rate", "datamodules", "trainers", "scripts"]
# Packages that a floor must not import: those above it.
FLOORS = {package: set(PACKAGES[index + 1 :]) for index, package in enumerate(PACKAGES)}
LIGHTNING = {"lightning", "lightning_fabric", "pytorch_lightning", "torchmetrics"}
FLOORS["rate"] |= LIGHTNING
MEMORY_MAZE = {"dm-control", "labmaze", "memory-maze"}
SIMULATORS = MEMORY_MAZE | {
    *("ale-py", "minigrid", "mujoco", "popgym", "stable-baselines3", "vizdoom")
}
NOTEBOOKS = {"ipykernel", "nbclient", "nbformat"}
# Each build of torch has its own CUDA packages.
CUDA = re.compile(r"(nvidia|cuda)-|triton$")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def lock() -> list[Requirement]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pins(lock: list[Requirement], python: str) -> dict[str, str]:
    """The versions that the lock installs on Linux with the given Python, by name."""
    environment = {
        "extra": "",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": "linux",
    }
    chosen = [pin for pin in lock if pin.marker is None or pin.marker.evaluate(environment)]
    names = [canonicalize_name(pin.name) for pin in chosen]
    assert len(names) == len(set(names)), "two pins of one package apply at once"
    return {
        name: str(pin.specifier).removeprefix("==") for name, pin in zip(names, chosen, strict=True)
    }


def requirements(project: dict[str, Any], *extras: str) -> Iterator[Requirement]:
    """The requirements of extras and of the extras they include; "" is the project itself."""
    for extra in extras:
        group = project["optional-dependencies"][extra] if extra else project["dependencies"]
        for requirement in map(Requirement, group):
            if requirement.name == project["name"]:
                yield from requirements(project, *requirement.extras)
            else:
                yield requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_pins_every_direct_dependency_within_its_range(
    project: dict[str, Any], lock: list[Requirement], python: str
) -> None:
    pinned = pins(lock, python)
    for requirement in requirements(project, "", "test", "lint", "ray"):
        short = {"python_version": python.rpartition(".")[0]}
        if requirement.marker is None or requirement.marker.evaluate(short):
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_pins_torch_exactly(lock: list[Requirement], python: str) -> None:
    assert pins(lock, python)["torch"] == "2.13.0"


def test_the_lock_holds_nothing_but_pins(lock: list[Requirement]) -> None:
    for pin in lock:
        assert pin.url is None, pin
        assert re.fullmatch(r"==[^*]+", str(pin.specifier)), pin
        assert not pin.extras, f"{pin}: pip refuses extras in constraints"
        assert not CUDA.match(pin.name), f"{pin}: each build of torch brings its own"
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index|--hash|--find-links", text)


def test_the_lock_is_complete(project: dict[str, Any], lock: list[Requirement]) -> None:
    """Every dependency of the installed packages is pinned too."""
    pinned = pins(lock, "{}.{}.{}".format(*sys.version_info[:3]))
    pending = list(requirements(project, "", "test"))
    seen: set[tuple[str, frozenset[str]]] = set()
    while pending:
        requirement = pending.pop()
        name, wanted = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, wanted) in seen or CUDA.match(name) or not applies(requirement.marker, {""}):
            continue
        seen.add((name, wanted))
        assert name in pinned, f"{requirement} is not in requirements.lock: run `make lock`"
        found = next(metadata.distributions(name=name), None)
        if found is None or not found.version.startswith(pinned[name]):
            continue  # the installed version may have other dependencies
        for text in metadata.requires(name) or ():
            child = Requirement(text)
            if applies(child.marker, {"", *wanted}):
                child.marker = None
                pending.append(child)


def test_the_test_extra_has_simulators_and_notebooks(project: dict[str, Any]) -> None:
    names = {requirement.name for requirement in requirements(project, "test")}
    assert names >= SIMULATORS | NOTEBOOKS


def test_the_project_without_extras_has_neither(project: dict[str, Any]) -> None:
    names = {requirement.name for requirement in requirements(project, "")}
    assert not names & (SIMULATORS | NOTEBOOKS)


@pytest.mark.parametrize("python", PYTHONS)
def test_every_python_gets_the_simulators_it_supports(lock: list[Requirement], python: str) -> None:
    missing = SIMULATORS - pins(lock, python).keys()
    # Memory Maze needs labmaze, which has no wheel for Python 3.13 and later.
    assert missing == (MEMORY_MAZE if python >= "3.13" else set())


@pytest.mark.parametrize("python", PYTHONS)
def test_mujoco_is_compatible_with_dm_control(lock: list[Requirement], python: str) -> None:
    assert pins(lock, python)["mujoco"].startswith("3.")


def test_the_lock_has_no_conflicting_packages(lock: list[Requirement]) -> None:
    """Two builds of OpenCV overwrite each other; gym is unmaintained; moviepy is large."""
    assert not {"gym", "moviepy", "opencv-python"} & {canonicalize_name(pin.name) for pin in lock}


def applies(marker: Any, extras: set[str]) -> bool:
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def test_every_supported_python_is_declared(project: dict[str, Any]) -> None:
    supported = Requirement(f"python{project['requires-python']}").specifier
    declared = {
        name.rpartition(" ")[2]
        for name in project["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", name)
    }
    assert declared == {python.rpartition(".")[0] for python in PYTHONS}
    assert all(supported.contains(python) for python in PYTHONS)
    assert not supported.contains("3.10.18")
    assert not supported.contains("3.15.0")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_code_is_a_package(package: str) -> None:
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


@pytest.mark.parametrize("package", ["rate", "datamodules", "trainers"])
def test_typed_packages_have_py_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_pre_commit_runs_the_locked_ruff(lock: list[Requirement]) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    revision = next(repo["rev"] for repo in hooks["repos"] if "ruff" in repo["repo"])
    assert revision == "v" + pins(lock, PYTHONS[0])["ruff"]


def test_the_wandb_example_holds_no_secret() -> None:
    settings = yaml.safe_load((ROOT / "wandb_config.yaml").read_text(encoding="utf-8"))
    assert not [key for key in settings if re.search("key|token|secret|password", key)]
    assert settings["mode"] in {"online", "offline", "disabled"}


def test_the_conda_environment_installs_this_project(project: dict[str, Any]) -> None:
    conda = yaml.safe_load((ROOT / "conda_env.yml").read_text(encoding="utf-8"))
    (pip,) = [part["pip"] for part in conda["dependencies"] if isinstance(part, dict)]
    assert conda["name"] == "rate"
    assert "-c requirements.lock" in pip
    (editable,) = [line for line in pip if line.startswith("-e .")]
    named = Requirement("here" + editable.removeprefix("-e .")).extras
    assert named <= project["optional-dependencies"].keys()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the top-level package of every absolute import in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.partition(".")[0]


def importing(package: str, forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, name in imports(path)
        if name in forbidden
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_floor_imports_only_those_below_it(package: str) -> None:
    assert importing(package, FLOORS[package]) == []


def test_the_floors_test_sees_a_forbidden_import(tmp_path: Path) -> None:
    source = "def f():\n    import trainers.cli\n    from lightning.fabric import Fabric\n"
    (tmp_path / "module.py").write_text(source, encoding="utf-8")
    assert list(imports(tmp_path / "module.py")) == [(2, "trainers"), (3, "lightning")]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_declared(project: dict[str, Any], package: str) -> None:
    """Every imported package is a dependency in pyproject.toml."""
    extras = project["optional-dependencies"].values()
    groups = [project["dependencies"], *extras]
    declared = {canonicalize_name(Requirement(text).name) for group in groups for text in group}
    providers = metadata.packages_distributions()
    undeclared = {
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in (ROOT / package).rglob("*.py")
        for line, name in imports(path)
        if name not in sys.stdlib_module_names
        and name not in PACKAGES
        and not declared & {canonicalize_name(each) for each in providers.get(name, [name])}
    }
    assert not undeclared


def test_importing_rate_loads_nothing_heavy() -> None:
    heavy = sorted(
        LIGHTNING | {"huggingface_hub", "matplotlib", "minari", "pandas", "tensorboard", "wandb"}
    )
    probe = f"import sys, rate; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []
