"""Every notebook runs from top to bottom, and is stored without outputs."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import PATIENCE

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
TRAIN_SCRIPTS = {
    "collect_tmaze": "train_tmaze",
    "collect_retrieval": "train_retrieval",
    "collect_minigrid": "train_minigrid",
    "collect_vizdoom": "train_vizdoom",
    "collect_memory_maze": "train_memory_maze",
    "inside_memory": "train_tmaze",
}
# Packages that each needs besides the project, and settings that make it short.
SMALL: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "collect_tmaze": ((), {"EPISODES": "20", "MAX_LENGTH": "12"}),
    "collect_retrieval": ((), {"EPISODES": "20", "MAX_LENGTH": "12"}),
    "collect_minigrid": (("minigrid",), {"EPISODES": "6", "MAX_LENGTH": "11"}),
    "collect_vizdoom": (("vizdoom",), {"EPISODES": "3", "MAX_LENGTH": "60"}),
    "collect_memory_maze": (
        ("memory_maze", "dm_control"),
        {"EPISODES": "2", "MAX_LENGTH": "40"},
    ),
    "inside_memory": ((), {"EPISODES": "40", "STEPS": "2", "SEGMENTS": "4"}),
}


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a kernel with this interpreter; kernels of the user are ignored."""
    spec = tmp_path / "jupyter" / "kernels" / "here" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(
        json.dumps({"argv": argv, "display_name": "here", "language": "python"}), encoding="utf-8"
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    return "here"


def test_every_notebook_is_tested() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SMALL) == set(TRAIN_SCRIPTS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert notebook.metadata == METADATA
    for cell in notebook.cells:
        assert cell.metadata == {}
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None), cell.id


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_names_the_train_command(path: Path) -> None:
    name = TRAIN_SCRIPTS[path.stem]
    assert (ROOT / "scripts" / f"{name}.py").is_file()
    assert f"python scripts/{name}.py" in path.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(
    path: Path, tmp_path: Path, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages, settings = SMALL[path.stem]
    for package in packages:
        if find_spec(package) is None:
            pytest.skip(f"needs {package}")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name in ("DATA_ROOT", "RUNS"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("WORKERS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    work = tmp_path / "work"
    work.mkdir()
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    client = nbclient.NotebookClient(
        notebook,
        timeout=PATIENCE,
        startup_timeout=PATIENCE,
        kernel_name=kernel,
        resources={"metadata": {"path": str(work)}},
    )
    client.execute()
    written = {entry.name for entry in tmp_path.iterdir()}
    assert "data_root" in written
