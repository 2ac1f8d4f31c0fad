"""Row 2: what row 1 measures, by `eventsourcing` (PyPI) on the same PostgreSQL.

It is asked at its lowest door, the recorder, without aggregates, mappers or serialising: whatever an application does
on top makes it slower. The goal is for the way it inserts unless told otherwise; what its optional functions in the
database give is reported beside it. Of both, the number of threads is the one that did best in trials beforehand.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import uvloop

from bench import append
from bench.interleave import interleave
from bench.result import Goal, Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Servers

THREADS = (1, 2, 4, 8, 16, 32)
TRIALS = 2  # of each; the better one counts: the other may have met a slow second of the machine
READY_PER_SECOND = 5_000  # more than it can append


class Way(NamedTuple):
    functions: bool  # inserts by a function in the database; it must be asked to
    threads: int

    def __str__(self) -> str:
        return ("a database function" if self.functions else "as it comes") + f", {self.threads} threads"


def measure(servers: Servers, scale: Scale) -> list[Result]:
    ours_url, theirs_url = servers.database(), servers.database()
    ways = [Way(functions, threads) for functions in (False, True) for threads in THREADS]
    tried = interleave(TRIALS, *(partial(_per_second, theirs_url, way, scale.warm_up / 2) for way in ways))
    trials = {way: max(rates) for way, rates in zip(ways, tried, strict=True)}
    best = [
        max((way for way in ways if way.functions is functions), key=trials.__getitem__) for functions in (False, True)
    ]
    counts: list[int] = []

    def appended() -> float:
        servers.checkpoint()
        count, took = uvloop.run(append.append(ours_url, scale.seconds))
        counts.append(count)
        return count / took

    def inserted(way: Way) -> float:
        servers.checkpoint()
        return _per_second(theirs_url, way, scale.seconds)

    ours, *theirs = interleave(scale.rounds, appended, *(partial(inserted, way) for way in best))
    notes = ["in trials: " + ", ".join(f"{rate:,.0f}/s ({way})" for way, rate in trials.items())]
    return [
        Result(
            row=2,
            label="append / eventsourcing" + (", a database function" if way.functions else ""),
            measure=f"durable append of one event of {append.EVENT_BYTES:,} bytes to a new stream, "
            f"{append.WRITERS} writers",
            unit="events/s",
            ours=ours,
            against=f"eventsourcing, its recorder, {way}",
            theirs=rates,
            goal=None if way.functions else Goal("at least", 12.0),
            n=sum(counts),
            notes=notes,
        )
        for way, rates in zip(best, theirs, strict=True)
    ]


def _per_second(database_url: str, way: Way, seconds: float) -> float:
    from eventsourcing.persistence import StoredEvent
    from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

    url = urlsplit(database_url)
    state = (append.EVENT.data + append.EVENT.metadata).encode()

    def event() -> StoredEvent:
        return StoredEvent(uuid4(), 1, "shop:OrderPlaced", state)

    ready = [event() for _ in range(round(READY_PER_SECOND * seconds))]  # as ours are made before
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
                recorder.insert_events([ready.pop() if ready else event()])
                count += 1
            return count

        with ThreadPoolExecutor(way.threads) as threads:
            for warm in [threads.submit(write, perf_counter() + 0.1) for _ in range(way.threads)]:
                warm.result()
            began = perf_counter()
            writing = [threads.submit(write, began + seconds) for _ in range(way.threads)]
            return sum(one.result() for one in writing) / (perf_counter() - began)


if __name__ == "__main__":
    sys.exit(run_row(measure))
