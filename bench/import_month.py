"""Row 12: `orders import` of a month of invoices, against the same orders as raw appends.

The invoices of the sample in `tests/data/` are repeated under other numbers until they are as many as in a month;
the environment variable `RETAIL_CSV` names a whole file to use instead. The import runs with its defaults, the raw
appends are those of row 1; both begin with orders that do not count. The duration of either side comes from
`recorded_at` of its first and last group of events. The import reads the whole file before it sends the first order, so
the time of reading is added. No goal: the importer is an ordinary HTTP client (decision 17).
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import uvloop
from uuid_utils.compat import uuid7

from bench import group_sizes, orders
from bench.append import WRITERS, running_group_commit
from bench.interleave import interleave
from bench.load import ROOT
from bench.result import Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Connection, Servers, Services, with_connection
from cli.importer.online_retail import OrderRequest, read_invoices
from cli.importer.rows import COLUMNS
from cli.stack.service import orders_command
from shared.aggregates.order import ORDER, OrderLine, OrderPlaced
from shared.eventstore.append_request import AppendRequest

SAMPLE = ROOT / "tests" / "data" / "online_retail_sample.csv.gz"
WARM_UP = 300  # invoices, on both sides

# Events after the first group behind a position, and the seconds until the last one.
_SPAN = """
select count(*) filter (where recorded_at > first), extract(epoch from max(recorded_at) - first)::float8
from events, (select min(recorded_at) as first from events where position > $1) as begun
where position > $1 group by first
"""


def measure(servers: Servers, scale: Scale) -> list[Result]:
    given = os.environ.get("RETAIL_CSV")
    warm_up = _month(servers.directory / "warm-up.csv", WARM_UP, "warm")
    file = Path(given) if given else _month(servers.directory / "month.csv", scale.invoices, "month")
    before = _orders(warm_up)
    placed = _orders(file)
    grouped: list[str] = []

    def imported() -> float:
        began = perf_counter()
        _orders(file)
        reading = perf_counter() - began
        database = servers.database()
        with servers.services(database, commands=1) as services:
            _import(servers, services, warm_up)
            _import(servers, services, file)
            grouped.append(group_sizes.of_service(services.port("command")).summary())
        return _per_second(database, len(before), reading)

    def appended() -> float:
        servers.checkpoint()
        database = servers.database()
        uvloop.run(_append(database, before, placed))
        return _per_second(database, len(before))

    ours, theirs = interleave(max(5, scale.rounds), imported, appended)
    lines = sum(len(order.items) for order in placed)
    of = "the file of RETAIL_CSV" if given else "invoices of the sample, repeated under other numbers"
    return [
        Result(
            row=12,
            label="import of a month",
            measure=f"`orders import`, {len(placed):,} orders, {lines:,} lines",
            unit="orders/s",
            ours=ours,
            against="raw appends of them",
            theirs=theirs,
            n=len(ours) * len(placed),
            notes=[of, grouped[-1]],
        )
    ]


def _orders(file: Path) -> list[OrderRequest]:
    return [placement.order for placement in read_invoices(file).placements]


def _per_second(database_url: str, behind: int, more_seconds: float = 0.0) -> float:
    """Returns orders per second; each order is one event."""

    async def ask(connection: Connection) -> float:
        row = await connection.fetchrow(_SPAN, behind)
        assert row is not None, "the log has events"
        return float(row[0] / (row[1] + more_seconds))

    return with_connection(database_url, ask)


def _month(path: Path, invoices: int, name: str) -> Path:
    """Writes that many invoices to a file; the name becomes part of their numbers."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in _invoices(invoices, name):
            writer.writerow(row)
    return path


def _invoices(count: int, name: str) -> Iterator[list[str]]:
    with gzip.open(SAMPLE, "rt", newline="", encoding="utf-8") as lines:
        rows = list(csv.reader(lines))[1:]
    numbers: set[str] = set()
    repetition = 0
    while True:
        for invoice, *rest in rows:
            number = f"{invoice}-{name}-{repetition}"
            if number not in numbers and len(numbers) == count:
                return
            numbers.add(number)
            yield [number, *rest]
        repetition += 1


def _import(servers: Servers, services: Services, file: Path) -> None:
    rejects = servers.directory / "rejects.csv"
    command_url = f"http://127.0.0.1:{services.port('command')}"
    command = orders_command("import", str(file), "--command-url", command_url, "--rejects", str(rejects))
    subprocess.run(command, check=True, capture_output=True)


async def _append(database_url: str, *parts: list[OrderRequest]) -> None:
    """Appends one part after the other."""
    async with running_group_commit(database_url) as group_commit:

        async def write(queue: Iterator[OrderRequest]) -> None:
            for order in queue:
                result = await group_commit.append(_placing(order))
                assert result.status == "appended"

        for part in parts:
            queue = iter(part)
            await asyncio.gather(*(write(queue) for _ in range(WRITERS)))


def _placing(order: OrderRequest) -> AppendRequest:
    lines = [OrderLine(item.product_id, item.quantity, item.unit_price, item.product_name) for item in order.items]
    event = OrderPlaced(order.customer_id, order.currency, tuple(lines), order.shipping_address_id)
    return AppendRequest.of_stream(ORDER.stream_of(order.order_id), 0, uuid7(), [orders.new_event(event)])


if __name__ == "__main__":
    sys.exit(run_row(measure))
