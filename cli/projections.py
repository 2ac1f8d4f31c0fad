"""`orders projections status`: how far the read models are behind the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.stack import running_stack

TIMEOUT_SECONDS = 5.0
LEVEL_STYLES = {"normal": "green", "warning": "yellow", "critical": "red", "emergency": "bold red"}


class NoAnswer(Exception):
    """No query service to ask, or it does not answer; the message says which."""


def show_status(query_url: str | None, data_dir: Path) -> None:
    """Print the lag of every read model. Raises NoAnswer."""
    stack = running_stack(data_dir)
    url = query_url or (stack.query_url if stack else None)
    if url is None:
        raise NoAnswer(f"nothing runs in {data_dir}: start a stack, or give --query-url")
    Console().print(_table(_fetch(url)))


def _fetch(url: str) -> list[dict[str, Any]]:
    try:
        answer = httpx.get(f"{url}/projections", timeout=TIMEOUT_SECONDS)
        document = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise NoAnswer(f"{url}: {error}") from error
    if not answer.is_success:
        raise NoAnswer(f"{url}: {document.get('detail', answer.reason_phrase)}")
    projections: list[dict[str, Any]] = document["projections"]
    return projections


def _generations(row: dict[str, Any]) -> str:
    others = {"kept": row.get("previous_generation"), "building": row.get("building_generation")}
    return ", ".join(
        [f"generation {row['generation']}", *(f"{number} {word}" for word, number in others.items() if number)]
    )


def _table(projections: list[dict[str, Any]]) -> Table:
    table = Table("read model", "level")
    for heading in ("head", "checkpoint", "behind by", "behind for"):
        table.add_column(heading, justify="right")
    table.add_column("what to do")
    for row in projections:
        level = row["level"]
        table.add_row(
            f"{row['name']} ({_generations(row)})",
            Text(level, LEVEL_STYLES.get(level, "")),
            f"{row['head']:,}",
            f"{row['checkpoint']:,}",
            f"{row['position_lag']:,} events",
            f"{row['time_lag_ms'] / 1000:,.3f} s",
            row["recommended_action"],
        )
    return table
