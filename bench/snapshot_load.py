"""Row 8: loading an order of 10,000 events and one of 100. A snapshot bounds the tail that is read and folded.

The orders are measured in turns.
"""

from __future__ import annotations

import statistics
import sys
from time import perf_counter

from bench import orders
from bench.result import Goal, Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Connection, Servers, with_connection
from shared.aggregates.order import ORDER, ShippingAddressChanged
from shared.eventstore import log as event_log
from shared.eventstore import snapshots
from shared.eventstore.log import AppendRequest, NewEvent
from shared.new_id import new_id

LIVES = (100, 1_000, 10_000)
TAIL = 50  # events after the last snapshot, as long for each
LOADS = 100  # of each order, a round


def measure(servers: Servers, scale: Scale) -> list[Result]:
    database = servers.database()
    with_connection(database, _live)
    rounds = [with_connection(database, _load) for _ in range(scale.rounds)]
    without = with_connection(database, _load_without_snapshot)
    shortest, longest = LIVES[0], LIVES[-1]
    return [
        Result(
            row=8,
            label="loading a long order",
            measure=f"loading an order of {longest:,} events",
            unit="ms",
            ours=[times[longest] for times in rounds],
            against=f"one of {shortest:,}",
            theirs=[times[shortest] for times in rounds],
            goal=Goal("at most", 2.0),
            n=scale.rounds * LOADS,
            notes=[f"{TAIL} events after its snapshot; without one it takes {without:.0f} ms"],
            curve={str(events): statistics.median(times[events] for times in rounds) for events in LIVES},
        )
    ]


async def _live(connection: Connection) -> None:
    """An order of each length, kept as a snapshot `TAIL` events before its end."""
    for events in LIVES:
        begun = [orders.placed(0), *_moves(events - 1 - TAIL)]
        await event_log.append_group(connection, [AppendRequest.of_stream(_stream(events), 0, new_id(), begun)])
    await snapshots.compact(connection, 10)
    for events in LIVES:
        await event_log.append_group(
            connection, [AppendRequest.of_stream(_stream(events), events - TAIL, new_id(), _moves(TAIL))]
        )


def _stream(events: int) -> str:
    return f"order-{events}"


def _moves(count: int) -> list[NewEvent]:
    return [orders.new_event(ShippingAddressChanged(f"address-{number}")) for number in range(count)]


async def _load(connection: Connection) -> dict[int, float]:
    """Median milliseconds by length of life."""
    times: dict[int, list[float]] = {events: [] for events in LIVES}
    for _ in range(LOADS):
        for events in LIVES:
            began = perf_counter()
            loaded = await snapshots.load(connection, ORDER, _stream(events))
            times[events].append((perf_counter() - began) * 1_000)
            assert loaded.version == events
    return {events: statistics.median(measured) for events, measured in times.items()}


async def _load_without_snapshot(connection: Connection) -> float:
    """Milliseconds."""
    await connection.execute("delete from snapshots")
    began = perf_counter()
    await snapshots.load(connection, ORDER, _stream(LIVES[-1]))
    return (perf_counter() - began) * 1_000


if __name__ == "__main__":
    sys.exit(run_row(measure))
