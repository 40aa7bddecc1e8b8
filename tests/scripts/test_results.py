"""The page of results is that of the tables, and its figure has every backbone."""

from __future__ import annotations

from pathlib import Path

from scripts import results
from trainers.commands.scores import add_scores
from trainers.commands.tables import as_markdown

ROW = {"environment": "tmaze", "which": "last", "episodes": 4}


def test_the_page_is_made_from_the_tables() -> None:
    made = results.page(results.RESULTS)
    assert results.PAGE.read_text(encoding="utf-8") == made, "run: python scripts/results.py"


def test_the_readme_has_the_table_of_memory_by_backbone() -> None:
    readme = (results.ROOT / "README.md").read_text(encoding="utf-8")
    assert as_markdown([results.memory_map(results.RESULTS)]).strip() in readme


def test_memory_is_compared_of_backbones_that_are_scored_on_more_than_one_question(
    tmp_path: Path,
) -> None:
    def add(table: str, model: str, length: int, *successes: float, **others: str) -> None:
        names = {"environment": table, "which": "last", "episodes": 4, **others}
        rows = [
            {**names, "model": model, "seed": seed, "length": length, "success": success}
            for seed, success in enumerate(successes, start=1)
        ]
        add_scores(tmp_path / f"{table}.csv", rows)

    for model, successes in {"dt": [0.25, 0.75], "gru": [1.0], "alone": [1.0]}.items():
        add("tmaze", model, 9600, *successes)
    add("tmaze", "gru", 90, 0.5)
    add("bits", "gru-8", 400, 0.5, 0.75)
    add("bits", "gru-3", 400, 0.0)
    add("bits", "dt-8", 400, 0.25, which="best")
    add("endless_tmaze", "dt", 10, 0.5, environment="endless_tmaze gap-90")
    add("endless_tmaze", "gru", 10, 0.5)
    assert results.memory_map(tmp_path).rows == [
        ["gru", "1.00 (1)", "–", "0.62 ± 0.18 (2)", "–", "–"],
        ["dt", "0.50 ± 0.35 (2)", "0.50 (1)", "–", "–", "–"],
    ]


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
