"""Row 7: stream reads, tailing and appends on logs of different sizes.

Streams are random ones of four events; tailing reads the last 1,000 events; appends come in groups of 32.

The logs are databases of one PostgreSQL and are measured alternately. Their pages are loaded into its shared buffers
first.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from time import perf_counter

import uvloop
from uuid_utils.compat import uuid7

from bench import orders, template_logs
from bench.result import Goal, Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Connection, Servers, checkpoint, connect, with_connection
from shared.aggregates.order import ORDER
from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest

GROUP = 32
PAGE = 1_000
SLICE = 0.1  # seconds of one size at a time

Work = Callable[[Connection, int], Awaitable[int]]  # (connection, events in the log) -> events done


async def append(connection: Connection, _: int) -> int:
    """Appends a group of events, each to a new stream."""
    placing = [
        AppendRequest.of_stream(f"order-{uuid7()}", 0, uuid7(), [orders.order_placed(number)])
        for number in range(GROUP)
    ]
    await event_log.append_group(connection, placing)
    return GROUP


async def read_stream(connection: Connection, events: int) -> int:
    """Reads a random order of four events."""
    number = random.randrange(events // orders.EVENTS_OF_AN_ORDER)
    return len([event async for event in event_log.read_stream(connection, ORDER.stream_of(orders.order_id(number)))])


async def tail(connection: Connection, _: int) -> int:
    """Reads the last page before the head."""
    head = await event_log.read_head(connection)
    return len(await event_log.read_batch(connection, head.position - PAGE, PAGE))


# Appends come last, because they evict other pages from the shared buffers.
MEASURES: dict[str, tuple[Work, str]] = {
    "stream reads": (read_stream, "events/s"),
    "tailing": (tail, "events/s"),
    "appends": (append, "events/s"),
}


def measure(servers: Servers, scale: Scale) -> list[Result]:
    copies = {size: servers.copy(template_logs.template_log(servers, size)) for size in scale.growth}
    held = servers.prewarm(copies.values())
    smallest, largest = scale.growth[0], scale.growth[-1]
    results = [
        Result(
            row=7,
            label="space of an event",
            measure="disk space per event, indexes included",
            unit="bytes",
            ours=[with_connection(copies[largest], _bytes) / largest],
        )
    ]
    for name, (work, unit) in MEASURES.items():
        rates = uvloop.run(_interleaved(copies, work, scale))
        curve = {str(size): sum(each) / len(each) for size, each in rates.items()}
        results += [
            Result(
                row=7,
                label=f"{name}, {size:,} events",
                measure=f"{name}, {size:,} events in the log",
                unit=unit,
                ours=rates[size],
                against=f"{smallest:,} events",
                theirs=rates[smallest],
                goal=Goal("at least", 0.9),
                n=round(sum(rates[size]) * _slices(scale.seconds / 4) * SLICE),
                notes=[f"PostgreSQL held {held[copies[size]]:.0%} of the log in its memory when it began"],
                curve=curve,
            )
            for size in scale.growth[1:]
        ]
    for url in copies.values():
        servers.drop(url)
    return results


async def _interleaved(copies: Mapping[int, str], work: Work, scale: Scale) -> dict[int, list[float]]:
    """Returns events per second of each round, by size.

    Each size keeps its connection, as a service does: a new session maps each shared buffer at its first access, which
    would dominate random reads in a large log."""
    rates: dict[int, list[float]] = {size: [] for size in copies}
    async with AsyncExitStack() as stack:
        connections: dict[int, Connection] = {}
        for size, url in copies.items():
            connections[size] = await connect(url)
            stack.push_async_callback(connections[size].close)
            await _touch(connections[size])
        await _round(connections, work, _slices(scale.warm_up / 2))
        for _ in range(2 * scale.rounds + 1):
            await checkpoint(connections[max(connections)])
            for size, rate in (await _round(connections, work, _slices(scale.seconds / 4))).items():
                rates[size].append(rate)
    return rates


async def _round(connections: Mapping[int, Connection], work: Work, slices: int) -> dict[int, float]:
    """Returns events per second by size, in that many slices of each. Slices are short and every other pass runs from
    the largest to the smallest, because the speed of a shared machine doubles or halves within a second."""
    done = dict.fromkeys(connections, 0)
    took = dict.fromkeys(connections, 0.0)
    for number in range(slices):
        for size in sorted(connections, reverse=number % 2 == 1):
            began = perf_counter()
            while (passed := perf_counter() - began) < SLICE:
                done[size] += await work(connections[size], size)
            took[size] += passed
    return {size: done[size] / took[size] for size in connections}


def _slices(seconds: float) -> int:
    return max(1, round(seconds / SLICE))


async def _touch(connection: Connection) -> None:
    """Reads the log and its stream index, so that this session has mapped all their buffers."""
    await connection.execute(
        """
        set max_parallel_workers_per_gather = 0;  -- this session alone
        select sum(octet_length(hash)) from events;
        set enable_seqscan = off;
        select count(*) from events where stream_id >= '';
        reset enable_seqscan;
        reset max_parallel_workers_per_gather
        """
    )


async def _bytes(connection: Connection) -> float:
    return float(await connection.fetchval("select pg_total_relation_size('events')"))


if __name__ == "__main__":
    sys.exit(run_row(measure))
