"""How long it takes to load an order, by the length of its life: `python -m bench.load_order`.

Goal: an order of 10,000 events costs at most twice what one of 100 costs, because a snapshot bounds the tail. Both are
measured in turns in one run, on PostgreSQL with fsync on; times are medians in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import platform
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import asyncpg
from uuid_utils.compat import uuid7

from cli.embedded import EmbeddedPostgres
from shared import codec, event_store, snapshots
from shared.event_store import Append, NewEvent
from shared.events.order import OrderEvent, OrderLine, OrderPlaced, ShippingAddressChanged
from shared.migrations import migrate

LIVES = (100, 1_000, 10_000)
TAIL = 50  # events after the last snapshot, as long for each
ROUNDS = 300
RESULTS = Path(__file__).parent / "results" / "load_order.json"


def _stream(events: int) -> str:
    return f"order-{events}"


def _move(number: int) -> NewEvent:
    return _event(ShippingAddressChanged(f"address-{number}"))


def _event(event: OrderEvent) -> NewEvent:
    return NewEvent(uuid7(), *codec.encode(event), "{}", datetime.now(UTC))


async def _live(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """An order of each length, kept as a snapshot `TAIL` events before its end."""
    placed = OrderPlaced("alice", "GBP", (OrderLine("MUG", 1, 450, "Mug"),), "home")
    for events in LIVES:
        moves = [_move(number) for number in range(events - 1 - TAIL)]
        await event_store.append_group(connection, [Append(_stream(events), 0, uuid7(), [_event(placed), *moves])])
    await snapshots.compact(connection, 10)
    for events in LIVES:
        moves = [_move(number) for number in range(TAIL)]
        await event_store.append_group(connection, [Append(_stream(events), events - TAIL, uuid7(), moves)])


async def _measure(connection: asyncpg.Connection[asyncpg.Record]) -> dict[int, float]:
    """Median milliseconds by length of life."""
    times: dict[int, list[float]] = {events: [] for events in LIVES}
    for _ in range(ROUNDS):
        for events in LIVES:
            started = perf_counter()
            loaded = await snapshots.load(connection, _stream(events))
            times[events].append((perf_counter() - started) * 1_000)
            assert loaded.version == events
    return {events: statistics.median(measured) for events, measured in times.items()}


async def _run(url: str) -> dict[str, object]:
    await migrate(url)
    connection = await asyncpg.connect(url)
    await _live(connection)
    with_snapshots = await _measure(connection)
    await connection.execute("delete from snapshots")
    started = perf_counter()
    await snapshots.load(connection, _stream(LIVES[-1]))
    without = (perf_counter() - started) * 1_000
    version = await connection.fetchval("show server_version")
    await connection.close()
    return {
        "milliseconds": with_snapshots,
        "ratio_10000_to_100": with_snapshots[LIVES[-1]] / with_snapshots[LIVES[0]],
        "milliseconds_10000_without_snapshot": without,
        "tail_events": TAIL,
        "postgres": version,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def main() -> int:
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedPostgres(Path(directory) / "postgres", flush_initial_files=False) as server,
    ):
        result = asyncio.run(_run(server.url))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0 if float(str(result["ratio_10000_to_100"])) <= 2.0 else 1


if __name__ == "__main__":
    sys.exit(main())
