"""Row 1: durable appends of one event of about 1 KB to a new stream, by 32 writers in one process.

Our side is the command service's group commit, with global order, hash chain and version check. The baseline, pgbench,
inserts into a table of the same shape without any of these.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter

import uvloop
from uuid_utils.compat import uuid7

from bench import group_sizes, orders
from bench.interleave import interleave
from bench.pgbench import Pgbench
from bench.result import Goal, Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Servers
from command_service.app import create_group_commit
from command_service.group_commit import GroupCommit
from shared.aggregates.order import OrderLine, OrderPlaced
from shared.eventstore import codec
from shared.eventstore.append_request import AppendRequest, NewEvent
from shared.settings import Settings

WRITERS = 32
WARM_UP_SECONDS = 0.1  # to connect and to plan; pgbench does not count its own either
_LINES = tuple(OrderLine(f"8512{n}A", n + 1, 255, f"WHITE HANGING HEART T-LIGHT HOLDER, {n}") for n in range(8))
EVENT = NewEvent(
    uuid7(), *codec.encode(OrderPlaced("17850", "GBP", _LINES, "address-1")), orders.METADATA, orders.new_time()
)
EVENT_BYTES = len(EVENT.data) + len(EVENT.metadata)

NewRequest = Callable[[], AppendRequest]


def measure(servers: Servers, scale: Scale) -> list[Result]:
    before = group_sizes.of_this_process()
    database = servers.database()
    pgbench = Pgbench(servers, database, EVENT.data, EVENT.metadata)
    counts: list[int] = []

    def appended(seconds: float) -> float:
        servers.checkpoint()
        count, took = uvloop.run(append(database, seconds))
        counts.append(count)
        return count / took

    def inserted(seconds: float) -> float:
        servers.checkpoint()
        return pgbench.per_second(seconds)

    appended(scale.warm_up)
    inserted(scale.warm_up)
    counts.clear()
    ours, plain = interleave(scale.rounds, partial(appended, scale.seconds), partial(inserted, scale.seconds))
    grouped = group_sizes.of_this_process().summary(before)
    return [
        Result(
            row=1,
            label="append / pgbench",
            measure=f"durable appends of an event of {EVENT_BYTES:,} bytes, {WRITERS} writers",
            unit="events/s",
            ours=ours,
            against="pgbench, an INSERT per transaction",
            theirs=plain,
            goal=Goal("at least", 1.2),
            n=sum(counts),
            notes=["the writers run in the process that appends; pgbench is C", grouped],
        )
    ]


def new_event() -> NewEvent:
    return EVENT._replace(event_id=uuid7(), occurred_at=orders.new_time())


def one_event() -> AppendRequest:
    """One event to a new stream."""
    event = new_event()
    owner = f"customer{event.event_id.int % 5_000}"
    return AppendRequest.of_stream(f"order-{event.event_id}", 0, event.event_id, (event,), owner=owner)


async def append(database_url: str, seconds: float, request: NewRequest = one_event) -> tuple[int, float]:
    """Returns (requests appended, seconds)."""
    async with running_group_commit(database_url) as group_commit:
        warm = await _write_all(group_commit, WARM_UP_SECONDS, request, [])
        # Made before the clock starts, as pgbench's event is; popped in the order of creation.
        ready = [request() for _ in range(round(1.5 * warm * seconds / WARM_UP_SECONDS))][::-1]
        began = perf_counter()
        return await _write_all(group_commit, seconds, request, ready), perf_counter() - began


@asynccontextmanager
async def running_group_commit(database_url: str) -> AsyncIterator[GroupCommit]:
    """Yields a group commit as the command service creates it."""
    settings = Settings.model_validate({"database_url": database_url, "redis_url": "redis://127.0.0.1:1/0"})
    monitor, group_commit = create_group_commit(settings)
    group_commit.start()
    try:
        yield group_commit
    finally:
        await group_commit.stop()
        await monitor.close()


async def _write_all(group_commit: GroupCommit, seconds: float, request: NewRequest, ready: list[AppendRequest]) -> int:
    until = perf_counter() + seconds
    return sum(await asyncio.gather(*(_write(group_commit, until, request, ready) for _ in range(WRITERS))))


async def _write(group_commit: GroupCommit, until: float, request: NewRequest, ready: list[AppendRequest]) -> int:
    count = 0
    while perf_counter() < until:
        result = await group_commit.append(ready.pop() if ready else request())
        assert result.status == "appended"
        count += 1
    return count


if __name__ == "__main__":
    sys.exit(run_row(measure))
