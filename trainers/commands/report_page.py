"""One HTML page that is complete in itself: text, tables, and pictures as data URIs.

Texts may come from files that others wrote: they are escaped, and the page's content security
policy allows no script and nothing from elsewhere.
"""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from rich.table import Table as PrintedTable
from rich.text import Text

from trainers.commands.tables import Table

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_TYPES = {".png": "image/png", ".gif": "image/gif"}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; max-width: 80rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
caption { text-align: left; color: #57606a; padding-bottom: .3rem; }
th, td { border-bottom: 1px solid #d0d7de; padding: .25rem .5rem; white-space: nowrap; }
th { border-bottom-color: #57606a; text-align: left; }
td { font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
.note { color: #57606a; max-width: 48rem; }
"""


class Page:
    """A page that grows from top to bottom.

    Args:
        title: Its title.
    """

    def __init__(self, title: str) -> None:
        self._title = escape(title)
        self._parts = [f"<h1>{self._title}</h1>"]

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def note(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f'<p class="note">{escape(text)}</p>')

    def table(self, table: Table) -> None:
        """Add a table, with its title above it and its note below it."""
        lines = [_row("th", table.header), *(_row("td", row) for row in table.rows)]
        title = f"<caption>{escape(table.title)}</caption>" if table.title else ""
        self._parts.append(f"<table>{title}\n" + "\n".join(lines) + "\n</table>")
        if table.note:
            self.note(table.note)

    def printed(self, table: PrintedTable) -> None:
        """Add a table that a command prints."""
        rows = zip(*(column.cells for column in table.columns), strict=True)
        cells = [[_plain(cell) for cell in row] for row in rows]
        header = [_plain(column.header) for column in table.columns]
        self.table(Table(_plain(table.title or ""), header, cells, ""))

    def picture(self, path: Path, text: str) -> None:
        """Add a PNG or a GIF.

        Args:
            path: The file; its content becomes a part of the page.
            text: What it shows, for those who cannot see it.
        """
        data = base64.b64encode(path.read_bytes()).decode()
        source = f"data:{_TYPES[path.suffix]};base64,{data}"
        self._parts.append(f'<img alt="{escape(text)}" src="{source}">')

    def html(self) -> str:
        """Returns the whole page."""
        head = [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{self._title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        ]
        return "\n".join([*head, *self._parts, "</body>\n</html>\n"])


def _row(tag: str, cells: list[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)
