"""Random lives of orders, as the decider allows them, at random times."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from uuid import UUID

import msgspec
from hypothesis import strategies as st

from command_service.domain.order import OrderCommand, decide
from projector.projections.orders import ORDERS
from projector.routing import record
from shared.aggregates.order import ORDER, OrderDocument, OrderEvent, State, evolve
from shared.errors import OrdersError
from shared.eventstore import codec
from shared.eventstore import log as event_log
from shared.eventstore.log import StoredEvent
from tests.order_commands import ORDER_ID, commands, fitted, placings
from tests.recording import Recorder

ID = ORDER_ID
EPOCH = datetime(2026, 1, 31, 14, 30, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

# Often none at all: events of one instant are where boundaries are.
_STEPS = st.sampled_from([0, 0, 1, 2, 60_000_000]).map(lambda count: count * MICROSECOND)


@dataclass(frozen=True)
class Happening:
    event: OrderEvent
    occurred_at: datetime
    recorded_at: datetime  # in a log that is made up; a real one has its own clock


@st.composite
def lives(draw: st.DrawFn) -> list[Happening]:
    """The events of one order. Both times only ever grow, independently of each other."""
    life: list[Happening] = []
    state: State = None
    occurred_at = recorded_at = EPOCH
    for command in itertools.chain([draw(placings)], draw(st.lists(commands, max_size=12))):
        events = _decided(command, state)
        occurred_at, recorded_at = occurred_at + draw(_STEPS), recorded_at + draw(_STEPS)
        life += [Happening(event, occurred_at, recorded_at) for event in events]
        state = reduce(evolve, events, state)
    return life


def _decided(command: OrderCommand, state: State) -> list[OrderEvent]:
    try:
        return decide(fitted(command, state), state)
    except OrdersError:
        return []


def as_rows(life: list[Happening]) -> list[StoredEvent]:
    """The rows of a log that is made up."""
    return [
        StoredEvent(
            number,
            ORDER.stream_of(ID),
            number,
            UUID(int=number),
            *codec.encode(happening.event),
            "{}",
            happening.occurred_at,
            happening.recorded_at,
            bytes(32),
        )
        for number, happening in enumerate(life, start=1)
    ]


async def live(recorder: Recorder, order_id: str, life: list[Happening]) -> list[StoredEvent]:
    """Records a life, one append an event, so that each has a time of its own; the rows of the log."""
    for happening in life:
        await recorder.record(order_id, happening.event, occurred_at=happening.occurred_at)
    return [event async for event in event_log.read_stream(recorder.connection, ORDER.stream_of(order_id))]


def projected(order_id: str, rows: list[StoredEvent]) -> OrderDocument | None:
    """What the projection makes of these rows."""
    document: OrderDocument | None = None
    for row in rows:
        document = ORDERS.apply(order_id, document, record(row))
    return document


def bytes_of(document: object) -> bytes:
    return msgspec.json.encode(document)


def included(rows: list[StoredEvent], as_of: datetime | None, known_at: datetime | None) -> list[StoredEvent]:
    """The rows that count, by the definition of the two times."""
    return [
        row
        for row in rows
        if (as_of is None or row.occurred_at <= as_of) and (known_at is None or row.recorded_at <= known_at)
    ]


def instants(times: list[datetime]) -> list[datetime | None]:
    """Every instant at which something can change, just before and after it, and no restriction at all."""
    around = {time + step for time in times for step in (-MICROSECOND, timedelta(0), MICROSECOND)}
    return [None, *sorted(around)]
