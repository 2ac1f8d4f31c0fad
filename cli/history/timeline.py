"""The timeline of one order as a table: a row for each event, with the fields of the document that it changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.history.log_snapshot import ReplayFailed, log_snapshot
from query_service import time_travel
from query_service.point_in_time import PointInTime, rfc3339
from shared.aggregates.aggregate import PastState
from shared.aggregates.order import ORDER, Order, OrderDocument, OrderItem, document
from shared.errors import Corrupt
from shared.eventstore import log as event_log
from shared.eventstore.log import StoredEvent

# Every event has these in columns of their own, or they follow from the items.
_NOT_SHOWN = {"order_id", "item_count", "placed_at", "last_event_at", "version"}
_PIPE_WIDTH = 1_000  # columns, so that nothing is wrapped


class TimelineEntry(NamedTuple):
    """An event, and the order's document before and after it."""

    event: StoredEvent
    before: OrderDocument | None
    after: OrderDocument


async def order_timeline(url: str, order_id: str, moment: PointInTime) -> list[TimelineEntry]:
    """The order's events up to the moment; empty when it did not exist. Raises NoHistory, ReplayFailed."""
    timeline: list[TimelineEntry] = []
    past: PastState[Order] | None = None
    async with log_snapshot(url) as (connection, _):
        async for event in event_log.read_stream(connection, ORDER.stream_of(order_id)):
            if not moment.includes(event):
                break
            try:
                past = time_travel.advance(ORDER, past, event)
            except Corrupt as error:
                raise ReplayFailed(f"stopped at position {event.position}: {error}") from error
            before = timeline[-1].after if timeline else None
            timeline.append(TimelineEntry(event, before, document(order_id, past)))
    return timeline


def print_timeline(order_id: str, moment: PointInTime, timeline: Sequence[TimelineEntry]) -> None:
    console = Console()
    # A terminal is narrow and a person reads it; a pipe is as wide as needed, and programs parse its times.
    between_date_and_time = "\n" if console.is_terminal else "T"
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    table = Table(title=Text(f"Order {order_id} {moment}".rstrip()), title_justify="left", show_lines=True)
    for heading in ("version", "position"):
        table.add_column(heading, justify="right")
    for heading in ("occurred at", "recorded at", "event", "what it changed"):
        table.add_column(heading, overflow="fold")
    for event, before, after in timeline:
        table.add_row(
            str(event.version),
            f"{event.position:,}",
            rfc3339(event.occurred_at).replace("T", between_date_and_time),
            rfc3339(event.recorded_at).replace("T", between_date_and_time),
            Text(_printable(event.event_type)),  # never as markup: it comes from the log
            Text("\n".join(changes(before, after))),
        )
    console.print(table)


def changes(before: OrderDocument | None, after: OrderDocument) -> Iterator[str]:
    """A line for every changed field; for items, one for every line that was added or removed."""
    for name in after.__struct_fields__:
        if name in _NOT_SHOWN:
            continue
        old, new = None if before is None else getattr(before, name), getattr(after, name)
        if name == "items":
            yield from _item_changes(old or (), new)
        elif old != new:
            yield f"{name}: {_value(new)}" if before is None else f"{name}: {_value(old)} → {_value(new)}"


def _item_changes(before: tuple[OrderItem, ...], after: tuple[OrderItem, ...]) -> Iterator[str]:
    old, new = Counter(map(msgspec.json.encode, before)), Counter(map(msgspec.json.encode, after))
    for sign, lines, others in (("-", before, new), ("+", after, old)):
        left = Counter(others)
        for line in lines:
            encoded = msgspec.json.encode(line)
            if left[encoded]:
                left[encoded] -= 1  # the same line is on the other side
            else:
                yield f"items: {sign} {_item(line)}"


def _item(item: OrderItem) -> str:
    name = f" {_printable(item.product_name)}" if item.product_name else ""
    return f"{item.quantity:,} x {_printable(item.product_id)}{name} at {item.unit_price:,} = {item.line_total:,}"


def _value(value: object) -> str:
    if value is None:
        return "nothing"
    return f"{value:,}" if isinstance(value, int) else _printable(str(value))


def _printable(text: str) -> str:
    """The text, with every control character escaped."""
    return text if text.isprintable() else ascii(text)
