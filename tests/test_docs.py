"""The README and every page of the documentation: their commands, snippets, files and links."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import pages
from tests.pages import PAGES, README, ROOT

RUN = [page for page in PAGES if any(b.language in ("bash", "python") for b in pages.blocks(page))]
# Pages whose commands others have as well.
REPEATED = ("docs/index.md", "docs/troubleshooting.md")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_is_run_or_left_out_for_a_reason(page: Path) -> None:
    for block in pages.blocks(page):
        if block.language == "bash":
            for words in block.commands():
                assert pages.is_left_out(words) != (pages.shortened(words) is not None), words


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.long) if name_of(p) in REPEATED else p for p in RUN],
    ids=name_of,
)
def test_the_commands_work_in_their_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None refuses what another one has made, and each finds what those before it leave."""
    clone = tmp_path / "clone"
    pages.make_clone(clone)
    monkeypatch.chdir(clone)
    missing = pages.run_page(page, monkeypatch)
    if page == README and not missing:
        runs = {path.name for path in (clone / "runs").iterdir()}
        assert {"quickstart", "tmaze-rmt-2", "tmaze-gated-1", "tmaze-rate-gtrxl-1"} <= runs
        assert {"tmaze-rate-3", "tmaze-tuned-1", "tmaze-again-2"} <= runs
        assert {"tmaze-rate-gru-1", "snippet-Masked-rate-1"} <= runs
        assert not [name for name in runs if re.search(r"-run\d+$", name)]  # no two of one name
        assert (clone / "learning.png").is_file()


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("kind", ["backbone", "environment", "format", "objective"])
def test_what_to_add_is_shown_whole_and_is_the_file_of_a_test(kind: str) -> None:
    (file,) = pages.included(ROOT / "docs" / "extend" / f"{kind}.md")
    module = file.removesuffix(".py").replace("/", ".")
    tests = (ROOT / "tests").rglob("test_*.py")
    assert any(module in path.read_text(encoding="utf-8") for path in tests), file


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    generated = {"configuration.md", "commands.md", "studies.md", "changelog.md"}
    for link in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / link).exists() or Path(link).name in generated, link


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="the extra docs is not installed")
def test_the_site_builds_and_has_every_setting(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    settings = (tmp_path / "configuration" / "index.html").read_text(encoding="utf-8")
    for name in ("model.num_memory_tokens", "training.bptt_segments", "data.held_out", "loss."):
        assert name in settings
    commands = (tmp_path / "commands" / "index.html").read_text(encoding="utf-8")
    assert "usage: rate evaluate" in commands
    assert "TracesState" in (tmp_path / "extend" / "backbone" / "index.html").read_text("utf-8")
