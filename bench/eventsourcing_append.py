"""Row 2: the append of row 1 against the library `eventsourcing` (PyPI) on the same PostgreSQL.

The baseline calls the library's recorder directly, without aggregates, mappers or serialisation. The goal applies to
its default insert mode; its optional database functions are reported. Each mode runs with the number of threads that
was fastest in trials.
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
TRIALS = 2  # of each number of threads; the faster one counts
READY_PER_SECOND = 5_000  # more than the library can append


class InsertMode(NamedTuple):
    functions: bool  # inserts by a database function, an option of the library
    threads: int

    def __str__(self) -> str:
        return ("a database function" if self.functions else "its default") + f", {self.threads} threads"


def measure(servers: Servers, scale: Scale) -> list[Result]:
    ours_url, theirs_url = servers.database(), servers.database()
    modes = [InsertMode(functions, threads) for functions in (False, True) for threads in THREADS]
    tried = interleave(TRIALS, *(partial(_per_second, theirs_url, mode, scale.warm_up / 2) for mode in modes))
    trials = {mode: max(rates) for mode, rates in zip(modes, tried, strict=True)}
    best = [
        max((mode for mode in modes if mode.functions is functions), key=trials.__getitem__)
        for functions in (False, True)
    ]
    counts: list[int] = []

    def appended() -> float:
        servers.checkpoint()
        count, took = uvloop.run(append.append(ours_url, scale.seconds))
        counts.append(count)
        return count / took

    def inserted(mode: InsertMode) -> float:
        servers.checkpoint()
        return _per_second(theirs_url, mode, scale.seconds)

    ours, *theirs = interleave(scale.rounds, appended, *(partial(inserted, mode) for mode in best))
    notes = ["in trials: " + ", ".join(f"{rate:,.0f}/s ({mode})" for mode, rate in trials.items())]
    return [
        Result(
            row=2,
            label="append / eventsourcing" + (", a database function" if mode.functions else ""),
            measure=f"durable appends of an event of {append.EVENT_BYTES:,} bytes, {append.WRITERS} writers",
            unit="events/s",
            ours=ours,
            against=f"`eventsourcing`, {mode}",
            theirs=rates,
            goal=None if mode.functions else Goal("at least", 12.0),
            n=sum(counts),
            notes=notes,
        )
        for mode, rates in zip(best, theirs, strict=True)
    ]


def _per_second(database_url: str, mode: InsertMode, seconds: float) -> float:
    from eventsourcing.persistence import StoredEvent
    from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

    url = urlsplit(database_url)
    state = (append.EVENT.data + append.EVENT.metadata).encode()

    def event() -> StoredEvent:
        return StoredEvent(uuid4(), 1, "shop:OrderPlaced", state)

    ready = [event() for _ in range(round(READY_PER_SECOND * seconds))]  # made before the clock starts
    with PostgresDatastore(
        url.path[1:],
        url.hostname or "",
        url.port or 0,
        url.username or "",
        url.password or "",
        pool_size=mode.threads,
        enable_db_functions=mode.functions,
    ) as datastore:
        recorder = PostgresApplicationRecorder(datastore)
        recorder.create_table()

        def write(until: float) -> int:
            count = 0
            while perf_counter() < until:
                recorder.insert_events([ready.pop() if ready else event()])
                count += 1
            return count

        with ThreadPoolExecutor(mode.threads) as threads:
            for warm in [threads.submit(write, perf_counter() + 0.1) for _ in range(mode.threads)]:
                warm.result()
            began = perf_counter()
            writing = [threads.submit(write, began + seconds) for _ in range(mode.threads)]
            return sum(one.result() for one in writing) / (perf_counter() - began)


if __name__ == "__main__":
    sys.exit(run_row(measure))
