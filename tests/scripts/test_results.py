"""The page of results is that of the tables, and its figure has every backbone."""

from __future__ import annotations

from pathlib import Path

from scripts import results
from trainers.commands.scores import add_scores

ROW = {"environment": "tmaze", "which": "last", "episodes": 4}


def test_the_page_is_made_from_the_tables() -> None:
    made = results.page(results.RESULTS)
    assert results.PAGE.read_text(encoding="utf-8") == made, "run: python scripts/results.py"


def test_new_rows_are_on_the_page_and_change_the_figure(tmp_path: Path) -> None:
    def add(name: str, model: str, which: str = "last", success: float = 0.5) -> str:
        row = {**ROW, "model": model, "seed": 1, "length": 90, "success": success, "which": which}
        add_scores(tmp_path / f"{name}.csv", [row])
        return results.page(tmp_path)

    first = add("tmaze", "rate", success=1.0)
    assert "| rate | 1 | 1.00 |" in first
    second = add("tmaze_more", "new_cell")
    assert second.index("## T-Maze") < second.index("## tmaze_more")  # without a title of its own
    add("tmaze_ablation", "no-noise")  # no backbone
    add("tmaze", "expert")
    add("tmaze", "rate", which="best")
    assert [row["model"] for row in results.gap_rows(tmp_path)] == ["rate", "new_cell"]
    digests = {text.split("figure ")[1][:16] for text in (first, second, results.page(tmp_path))}
    assert len(digests) == 2
    results.draw(results.gap_rows(tmp_path), tmp_path / "gap.png")
    assert (tmp_path / "gap.png").read_bytes().startswith(b"\x89PNG")
