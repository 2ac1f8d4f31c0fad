"""The status of the read models, as the query service reports it."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from textwrap import indent
from typing import Any

import httpx
from rich.console import Console
from rich.text import Text

from cli.bearer_token import ADVICE, BearerToken
from cli.failure import CommandFailed
from cli.options import DEFAULT_DATA_DIR
from cli.stack.addresses import find_stack
from cli.tables import output_console, print_json, print_table

TIMEOUT_SECONDS = 10.0
UNKNOWN = "unknown"
LEVEL_STYLES = {
    "normal": "green",
    "warning": "yellow",
    "critical": "red",
    "emergency": "bold red",
    UNKNOWN: "bold red",
}


class NoAnswer(CommandFailed):
    """There is no query service, or it does not answer."""


def show_status(
    query_url: str | None,
    data_dir: Path | None,
    *,
    token: BearerToken | None = None,
    tracebacks: bool = False,
    as_json: bool = False,
) -> None:
    """Print the lag of every read model and the events that it could not apply. Raises NoAnswer, NoAddress."""
    stack = find_stack(data_dir)
    url = query_url or (stack.query_url if stack else None)
    if url is None:
        raise NoAnswer(f"nothing runs in {DEFAULT_DATA_DIR}: start a stack, or give --query-url")
    document = _fetch(url, token)
    if as_json:
        print_json(document)
        return
    console = output_console()
    _print_lags(document["projections"], console)
    for row in document["projections"]:
        for line in _troubles(row, tracebacks=tracebacks):
            console.print(line, markup=False, soft_wrap=True)
    for stall in document.get("stalls", []):
        console.print(_blocker(stall), style="yellow", markup=False, soft_wrap=True)
    for holder in document.get("foreign_leases", []):
        console.print(_foreign_lease(holder), style="yellow", markup=False, soft_wrap=True)


def _foreign_lease(holder: dict[str, Any]) -> str:
    session = f"pid {holder['pid']} ({holder['application'] or 'no name'}, user {holder['user']}"
    return (
        f"Lease held by a foreign session: {holder['lease']} by {session}, from {holder['client'] or 'not known'},"
        f" since {holder['since'] or 'not known'})"
    )


def _fetch(url: str, token: BearerToken | None) -> dict[str, Any]:
    try:
        answer = httpx.get(f"{url}/projections", auth=token, timeout=TIMEOUT_SECONDS)
        document: dict[str, Any] = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise NoAnswer(f"{url}: {error}") from error
    if answer.status_code == HTTPStatus.NOT_FOUND:
        raise NoAnswer(f"{url} shows no read models: give --query-url the address of the service's OPERATIONS_PORT")
    if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise NoAnswer(f"{url}: {document.get('detail', answer.reason_phrase)} ({ADVICE})")
    if not answer.is_success:
        stalls = "".join(f"\n{_blocker(stall)}" for stall in document.get("stalls", []))
        raise NoAnswer(f"{url}: {document.get('detail', answer.reason_phrase)}{stalls}")
    return document


def _blocker(stall: dict[str, Any]) -> str:
    session = f"pid {stall['pid']} ({stall['application'] or 'no name'}, {stall['state'] or 'state not known'})"
    age = stall["transaction_age_ms"]
    since = "" if age is None else f", its transaction is {age / 1000:,.0f} s old"
    if stall["blocked_application"] is None:
        return f"Blocks the log: {session}{since}"
    waits = f"{stall['blocked_application']} has waited for {stall['waited_ms'] / 1000:,.1f} s"
    return f"Blocks the log: {session}{since}; {waits}"


def _generations(row: dict[str, Any]) -> str:
    others = {"kept": row.get("previous_generation"), "building": row.get("building_generation")}
    words = [f"generation {row['generation']}", *(f"{number} {word}" for word, number in others.items() if number)]
    return ", ".join([*words, "rebuilding: queries wait"] if row["rebuilding"] else words)


def _projector(row: dict[str, Any]) -> str:
    """The process that applies its events, the process's state, and the age of its heartbeat."""
    if row["heartbeat_age_ms"] is None:
        return "none"
    return f"{row['projector']} {row['projector_state']}, {row['heartbeat_age_ms'] / 1000:,.1f} s ago"


def _figures(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """The distance of the checkpoint to the head in events and in time, and both; a partition has no head."""
    events, milliseconds = row["position_lag"], row["time_lag_ms"]
    return (
        UNKNOWN if events is None else f"{events:,}",
        UNKNOWN if milliseconds is None else f"{milliseconds / 1000:,.3f} s",
        f"{row['checkpoint']:,}",
        _head(row) if "head" in row else "",
    )


def _head(row: dict[str, Any]) -> str:
    return UNKNOWN if row["head"] is None else f"{row['head']:,}"


def _level(row: dict[str, Any]) -> Text:
    level = row["level"] or UNKNOWN
    return Text(level, LEVEL_STYLES.get(level, ""))


def _troubles(row: dict[str, Any], *, tracebacks: bool) -> Iterator[str]:
    name, stopped = row["name"], row["stopped_at"]
    if stopped is not None:
        yield f"{name} has stopped before {_event(stopped)}"
        yield from _traceback(stopped, shown=tracebacks)
    elif row["stuck_because"]:
        yield f"{name} is stuck: {row['stuck_because']}"
    if row["parked"]:
        yield f"{name} has parked {row['parked']} streams" + (", the first of them:" if row["parked"] > 1 else ":")
    for event in row["parked_events"]:
        yield f"  {_event(event)}; {event['waiting']} later events wait"
        yield from _traceback(event, shown=tracebacks)


def _event(event: dict[str, Any]) -> str:
    what = f"{event['event_type']}, version {event['version']} of {event['stream_id']}"
    return f"event {event['position']} ({what}): {event['error']}"


def _traceback(event: dict[str, Any], *, shown: bool) -> Iterator[str]:
    if shown:
        yield indent(event["traceback"].rstrip(), "    ")


def _print_lags(projections: list[dict[str, Any]], console: Console) -> None:
    """On a terminal, what does not fit 80 columns follows the table."""
    rows: list[list[str | Text]] = []
    notes: list[list[str]] = []
    for projection in projections:
        parts = projection["partitions"] if len(projection["partitions"]) > 1 else []
        for one in (projection, *parts):
            name = one["name"] if one is projection else f"  partition {one['partition']}"
            rows.append([name, _level(one), *_figures(one)])
            notes.append(
                [_projector(one), *([_generations(one), one["recommended_action"]] if one is projection else [])]
            )
    headings = ["read model", "level", ">events behind", ">time behind", ">checkpoint", ">head"]
    if not console.is_terminal:
        print_table(
            [*headings, "projector", "generations", "what to do"],
            [[*row, *note] for row, note in zip(rows, notes, strict=True)],
        )
        return
    print_table(headings, rows)
    for row, note in zip(rows, notes, strict=True):
        console.print(f"{row[0]}: {'; '.join(note)}", markup=False, soft_wrap=True)
