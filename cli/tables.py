"""What commands print: tables that fit a terminal of 80 columns, plain rows where output is piped, or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

NUMBERS = ">"  # in front of a heading: the column is of numbers
_PIPE_WIDTH = 100_000  # columns, so that nothing is wrapped or cut


def print_json(document: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(document)).decode())


def print_fields(fields: Mapping[str, Any], *, as_json: bool) -> None:
    """A line for each field."""
    if as_json:
        print_json(fields)
        return
    width = max(8, *map(len, fields)) + 2
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            print(f"{name.replace('_', ' '):{width}}{one}")


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str | Text]], *, title: str = "", row_lines: bool = False
) -> None:
    """On a terminal with lines, the last column wrapped to its width; else as wide as it needs, without lines."""
    console = output_console()
    table = Table(title=Text(title) if title else None, title_justify="left", show_lines=row_lines)
    if not console.is_terminal:
        table.box, table.pad_edge = None, False
    for heading in headings:
        whole = heading is not headings[-1]
        if heading.startswith(NUMBERS):
            table.add_column(heading.removeprefix(NUMBERS), justify="right", overflow="fold", no_wrap=whole)
        else:
            table.add_column(heading, overflow="fold", no_wrap=whole)
    for row in rows:
        # Never as markup: much of it comes from the log.
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    console.print(table)


def output_console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)
