"""Row 8: loading an order of 10,000 events against one of 100, both from a snapshot and the events after it."""

from __future__ import annotations

import statistics
import sys
from time import perf_counter

from uuid_utils.compat import uuid7

from bench import orders
from bench.result import Goal, Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Connection, Servers, with_connection
from shared.aggregates.order import ORDER, ShippingAddressChanged
from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, NewEvent
from shared.eventstore.snapshots import Snapshots, compact
from shared.eventstore.store import PostgresEventStore

LENGTHS = (100, 1_000, 10_000)  # events
TAIL = 50  # events after the snapshot, in each stream
LOADS = 100  # of each order in a round


def measure(servers: Servers, scale: Scale) -> list[Result]:
    database = servers.database()
    with_connection(database, _fill)
    rounds = [with_connection(database, _load) for _ in range(scale.rounds)]
    without = with_connection(database, _load_without_snapshot)
    shortest, longest = LENGTHS[0], LENGTHS[-1]
    return [
        Result(
            row=8,
            label="loading a long order",
            measure=f"loading a stream of {longest:,} events",
            unit="ms",
            ours=[times[longest] for times in rounds],
            against=f"a stream of {shortest:,}",
            theirs=[times[shortest] for times in rounds],
            goal=Goal("at most", 2.0),
            n=scale.rounds * LOADS,
            notes=[f"{TAIL} events after its snapshot; without one it takes {without:.0f} ms"],
            curve={str(events): statistics.median(times[events] for times in rounds) for events in LENGTHS},
        )
    ]


async def _fill(connection: Connection) -> None:
    """Appends an order of each length, with a snapshot `TAIL` events before its end."""
    for events in LENGTHS:
        head = [orders.order_placed(0), *_address_changes(events - 1 - TAIL)]
        await event_log.append_group(connection, [AppendRequest.of_stream(_stream(events), 0, uuid7(), head)])
    await compact(connection, _snapshots(connection), 10)
    for events in LENGTHS:
        await event_log.append_group(
            connection, [AppendRequest.of_stream(_stream(events), events - TAIL, uuid7(), _address_changes(TAIL))]
        )


def _snapshots(connection: Connection) -> Snapshots:
    return Snapshots(PostgresEventStore(connection), b"the benchmark's key")


def _stream(events: int) -> str:
    return f"order-{events}"


def _address_changes(count: int) -> list[NewEvent]:
    return [orders.new_event(ShippingAddressChanged(f"address-{number}")) for number in range(count)]


async def _load(connection: Connection) -> dict[int, float]:
    """Returns median milliseconds by stream length."""
    times: dict[int, list[float]] = {events: [] for events in LENGTHS}
    for _ in range(LOADS):
        for events in LENGTHS:
            began = perf_counter()
            loaded = await _snapshots(connection).load(ORDER, _stream(events))
            times[events].append((perf_counter() - began) * 1_000)
            assert loaded.version == events
    return {events: statistics.median(measured) for events, measured in times.items()}


async def _load_without_snapshot(connection: Connection) -> float:
    """Returns milliseconds."""
    await connection.execute("delete from snapshots")
    began = perf_counter()
    await _snapshots(connection).load(ORDER, _stream(LENGTHS[-1]))
    return (perf_counter() - began) * 1_000


if __name__ == "__main__":
    sys.exit(run_row(measure))
