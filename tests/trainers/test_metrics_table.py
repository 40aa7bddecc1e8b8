"""The table of metrics: complete and equal after every interruption."""

from __future__ import annotations

from trainers.csv_logger import MetricsTable


def log(table: MetricsTable, first: int, last: int) -> None:
    for step in range(first, last + 1):
        table.log_metrics({"loss": 1 / step}, step)
        if step % 3 == 0:
            table.log_metrics({"selection/success@5": step / 10}, step)


def test_columns_grow_and_a_step_is_a_row(tmp_path) -> None:
    table = MetricsTable(tmp_path)
    log(table, 1, 4)
    table.finalize("success")
    assert (tmp_path / "metrics.csv").read_text() == (
        "step,loss,selection/success@5\n1,1,\n2,0.5,\n3,0.333333333,0.3\n4,0.25,\n"
    )


def test_the_table_does_not_depend_on_the_saves(tmp_path) -> None:
    for name, saves in (("often", True), ("once", False)):
        (tmp_path / name).mkdir()
        table = MetricsTable(tmp_path / name)
        for step in range(1, 8):
            log(table, step, step)
            if saves:
                table.save()
        table.finalize("success")
    read = [(tmp_path / name / "metrics.csv").read_bytes() for name in ("often", "once")]
    assert read[0] == read[1]


def test_every_interruption_is_repaired(tmp_path) -> None:
    """Killed after any step, with a partial last line, and rewound to any earlier step."""
    (tmp_path / "whole").mkdir()
    whole = MetricsTable(tmp_path / "whole")
    log(whole, 1, 8)
    whole.finalize("success")
    expected = (tmp_path / "whole" / "metrics.csv").read_bytes()
    for killed in (1, 2, 3, 5, 7):
        for step in range(killed):
            for torn in (0, 3):
                folder = tmp_path / f"{killed}-{step}-{torn}"
                folder.mkdir()
                first = MetricsTable(folder)
                log(first, 1, killed)
                first.save()
                content = (folder / "metrics.csv").read_bytes()
                (folder / "metrics.csv").write_bytes(content[: len(content) - torn])
                second = MetricsTable(folder)
                second.rewind(step)
                log(second, step + 1, 8)
                second.finalize("success")
                assert (folder / "metrics.csv").read_bytes() == expected


def test_rows_are_appended_without_rewriting_the_file(tmp_path) -> None:
    table = MetricsTable(tmp_path)
    log(table, 1, 4)
    table.save()
    inode = (tmp_path / "metrics.csv").stat().st_ino
    log(table, 5, 5)
    table.save()
    assert (tmp_path / "metrics.csv").stat().st_ino == inode
