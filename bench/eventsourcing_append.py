"""Row 2: what row 1 measures, by `eventsourcing` (PyPI) on the same PostgreSQL.

It is asked at its lowest door, the recorder, without aggregates, mappers or serialising: whatever an application does
on top makes it slower. Threads and way of inserting are those that did best in a trial beforehand.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import uvloop

from bench import append
from bench.result import Goal, Result
from bench.run import alone
from bench.scale import Scale
from bench.servers import Servers

THREADS = (1, 2, 4, 8, 16, 32)


class Way(NamedTuple):
    threads: int
    functions: bool  # inserts by a function in the database instead of a pipeline of statements

    def __str__(self) -> str:
        return f"{self.threads} threads, " + ("a database function" if self.functions else "pipelined statements")


def measure(servers: Servers, scale: Scale) -> list[Result]:
    ours_url, theirs_url = servers.database(), servers.database()
    ways = [Way(threads, functions) for threads in THREADS for functions in (False, True)]
    trials = {way: _per_second(theirs_url, way, scale.warm_up) for way in ways}
    best = max(trials, key=trials.__getitem__)
    ours: list[float] = []
    theirs: list[float] = []
    appended = 0
    for _ in range(scale.rounds):
        servers.settle()
        count, took = uvloop.run(append.append(ours_url, scale.seconds))
        appended += count
        ours.append(count / took)
        servers.settle()
        theirs.append(_per_second(theirs_url, best, scale.seconds))
    return [
        Result(
            row=2,
            label="append / eventsourcing",
            measure=f"durable append of one event of {append.EVENT_BYTES:,} bytes to a new stream, "
            f"{append.WRITERS} writers",
            unit="events/s",
            ours=ours,
            against=f"eventsourcing, its recorder, {best}",
            theirs=theirs,
            goal=Goal("at least", 12.0),
            n=appended,
            notes=["the best of " + ", ".join(f"{rate:,.0f}/s ({way})" for way, rate in trials.items())],
        )
    ]


def _per_second(database_url: str, way: Way, seconds: float) -> float:
    from eventsourcing.persistence import StoredEvent
    from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

    url = urlsplit(database_url)
    state = (append.EVENT.data + append.EVENT.metadata).encode()
    with PostgresDatastore(
        url.path[1:],
        url.hostname or "",
        url.port or 0,
        url.username or "",
        url.password or "",
        pool_size=way.threads,
        enable_db_functions=way.functions,
    ) as datastore:
        recorder = PostgresApplicationRecorder(datastore)
        recorder.create_table()

        def write(until: float) -> int:
            count = 0
            while perf_counter() < until:
                recorder.insert_events([StoredEvent(uuid4(), 1, "shop:OrderPlaced", state)])
                count += 1
            return count

        with ThreadPoolExecutor(way.threads) as threads:
            for warm in [threads.submit(write, perf_counter() + 0.1) for _ in range(way.threads)]:
                warm.result()
            began = perf_counter()
            writing = [threads.submit(write, began + seconds) for _ in range(way.threads)]
            return sum(one.result() for one in writing) / (perf_counter() - began)


if __name__ == "__main__":
    sys.exit(alone(measure))
