"""Row 6: a rebuild of the order documents, `orders projections rebuild orders`, up to the start of its verification.

One process reads, decodes and folds the log and writes to Valkey. The time starts when it connects to the log. The
baseline reads the log alone, in pages of the same size. The number of writes per order depends on the distance of its
events in the log: below a thousand positions, and, reported, so far that each order is written more than once.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
from time import perf_counter
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from bench import append, orders, template_logs
from bench.load import LoadFailed
from bench.pgbench import Pgbench
from bench.result import Goal, Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Connection, Servers, with_connection
from cli.stack.service import orders_command
from shared.eventstore import log as event_log
from shared.settings import Settings

BUILT = b"comparing"  # begins the line that the command prints next
PAGE = int(Settings.model_fields["projector_batch_size"].default)
TIMES_PGBENCH = 3.0  # 60,000 events/s where pgbench inserts 20,000

APART = 100_000
_AGAINST = {
    "reading the log alone": "reading the log",
    "pgbench": "pgbench of row 1",
}

# Seconds since the oldest connection to a database; null without a connection.
_CONNECTED = """
select extract(epoch from clock_timestamp() - min(backend_start))::float8 from pg_stat_activity
where datname = $1 and backend_type = 'client backend'
"""


def measure(servers: Servers, scale: Scale) -> list[Result]:
    log = template_logs.template_log(servers, scale.events)
    pgbench = Pgbench(servers, servers.database(), append.EVENT.data, append.EVENT.metadata)
    inserts = []
    measured = _Rounds(scale.events)
    for _ in range(scale.rounds if scale.events < 500_000 else 2):
        servers.checkpoint()
        measured.take(servers, log)
        inserts.append(pgbench.per_second(scale.seconds))
    results = [
        measured.result("", "reading the log alone", measured.alone, Goal("at least", 0.3)),
        measured.result("", "pgbench", inserts, Goal("at least", TIMES_PGBENCH)),
    ]
    if scale.events >= 2 * APART:
        apart = _Rounds(2 * APART)
        url = servers.database()
        orders.fill(url, apart.events, apart=APART)
        servers.vacuum(url)
        apart.take(servers, url)
        results.append(apart.result(", spread", "reading the log alone", apart.alone, None))
        servers.drop(url)
    return results


class _Rounds:
    """The rounds on one log: rebuild, and reading alone."""

    def __init__(self, events: int) -> None:
        self.events = events
        self.built: list[_Rebuild] = []
        self.alone: list[float] = []  # events a second

    def take(self, servers: Servers, log: str) -> None:
        self.built.append(_build(servers, log))
        self.alone.append(self.events / with_connection(log, _read_all))

    def result(self, of: str, against: str, theirs: list[float], goal: Goal | None) -> Result:
        cores = statistics.median(each.cpu_seconds / each.seconds for each in self.built)
        return Result(
            row=6,
            label=f"rebuild{of} / {against}",
            measure=f"rebuild of `orders`, {self.events:,} events{of}",
            unit="events/s",
            ours=[self.events / each.seconds for each in self.built],
            against=_AGAINST[against],
            theirs=theirs,
            goal=goal,
            n=len(self.built) * self.events,
            notes=[f"the rebuilding process took {cores:.2f} of a core"],
        )


class _Rebuild(NamedTuple):
    """Of the rebuilding process, from its connection to the log to the start of the verification."""

    seconds: float
    cpu_seconds: float


def _build(servers: Servers, database_url: str) -> _Rebuild:
    with servers.valkey() as valkey:
        environment = {
            **os.environ,
            "DATABASE_URL": servers.url_as("projector", database_url),
            "REDIS_URL": valkey.url,
            "PYTHONUNBUFFERED": "1",
        }
        # A connection to another database: only the rebuilding process connects to the log's.
        return with_connection(
            servers.postgres.url, lambda connection: _time_rebuild(connection, database_url, environment)
        )


async def _time_rebuild(connection: Connection, database_url: str, environment: dict[str, str]) -> _Rebuild:
    database = urlsplit(database_url).path[1:]
    process = await asyncio.create_subprocess_exec(
        *orders_command("projections", "rebuild", "orders"),
        env=environment,
        cwd="/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        built = asyncio.create_task(_wait_for_line(process, BUILT))
        while not await connection.fetchval(_CONNECTED, database) and not built.done():  # noqa: ASYNC110 - no event to wait for
            await asyncio.sleep(0.005)
        cpu_before = _cpu_seconds(process.pid)
        await built
        return _Rebuild(await connection.fetchval(_CONNECTED, database), _cpu_seconds(process.pid) - cpu_before)
    finally:
        process.kill()  # the verification is not measured
        await process.wait()


async def _wait_for_line(process: asyncio.subprocess.Process, begin: bytes) -> None:
    """Raises LoadFailed with the output when the process ends before."""
    assert process.stdout is not None
    lines = []
    async for line in process.stdout:
        if line.startswith(begin):
            return
        lines.append(line)
    raise LoadFailed(b"".join(lines).decode())


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def _read_all(connection: Connection) -> float:
    """Returns seconds."""
    began = perf_counter()
    after = 0
    while events := await event_log.read_batch(connection, after, PAGE):
        after = events[-1].position
    return perf_counter() - began


if __name__ == "__main__":
    sys.exit(run_row(measure))
