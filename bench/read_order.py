"""Row 4: `GET /orders/{id}` over 10,000 random orders, one query process, against a bare FastAPI route.

The warm-up fills the client-side cache, which then answers nearly all reads; the same without the cache is reported.
Throughput comes from a closed loop, latency from an open loop: both sides at 60 % of the slowest closed-loop round.
"""

from __future__ import annotations

import http.client
import sys
from collections.abc import Mapping

from bench import orders
from bench.bare_route import BareService
from bench.http_connection import get_request
from bench.interleave import interleave
from bench.load import Flow, Plan, Report, run
from bench.read_your_writes import wait_until_read
from bench.result import Goal, Result, percentile
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Servers, Services, started

ORDERS = 10_000
CONNECTIONS = 32
LOAD = 0.6  # of the throughput of the query process


def measure(servers: Servers, scale: Scale) -> list[Result]:
    database = servers.database()
    orders.place(database, range(ORDERS))
    results = _measure(servers, database, scale, {}, "")
    if scale.name != "check":
        results += _measure(servers, database, scale, {"REMEMBERED_DOCUMENT_BYTES": "0"}, ", no cache")
    return results


def _measure(servers: Servers, database: str, scale: Scale, settings: Mapping[str, str], variant: str) -> list[Result]:
    with servers.services(database, queries=1, settings=settings) as services:
        wait_until_read(services, orders.order_id(ORDERS - 1))
        with started(BareService(servers.directory, _answer_bytes(services))) as bare:
            return _interleaved((services.port("query"), bare.port), scale, services.pids, variant)


def _interleaved(ports: tuple[int, int], scale: Scale, pids: dict[str, list[int]], variant: str) -> list[Result]:
    """`variant` names settings other than the defaults; these have no goal and fewer rounds."""
    query, bare = ports
    short = scale.short
    once = bool(variant) or scale.rounds == 1
    size = scale if once else short
    if not once:
        _load(query, scale)  # fills the cache
    closed, bare_closed = interleave(
        1 if once else short.rounds, lambda: _load(query, size, pids), lambda: _load(bare, size)
    )
    rate = LOAD * min(report.per_second() for report in closed)
    opened, bare_opened = interleave(
        1 if variant else short.rounds, lambda: _load(query, short, pids, rate), lambda: _load(bare, short, {}, rate)
    )
    return [
        Result(
            row=4,
            label=f"GET /orders/{{id}}{variant}",
            measure=f"`GET /orders/{{id}}`, one query process{variant}",
            unit="requests/s",
            ours=[report.per_second() for report in closed],
            against="a bare FastAPI route",
            theirs=[report.per_second() for report in bare_closed],
            goal=None if variant else Goal("at least", 0.8),
            n=sum(report.flows[0].answers for report in closed),
            client_cpu=max(report.client_cpu for report in (*closed, *bare_closed)),
            notes=[closed[-1].cpu_summary()],
        ),
        Result(
            row=4,
            label=f"GET /orders/{{id}}, p99{variant}",
            measure=f"its p99 at {LOAD:.0%} of its slowest round{variant}",
            unit="ms",
            ours=[percentile(report.flows[0].latencies, 0.99) for report in opened],
            against="the bare route at that rate",
            theirs=[percentile(report.flows[0].latencies, 0.99) for report in bare_opened],
            goal=None if variant else Goal("at most", 1.5),
            n=sum(report.flows[0].answers for report in opened),
            client_cpu=max(report.client_cpu for report in (*opened, *bare_opened)),
            notes=[f"at {rate:,.0f}/s", opened[-1].send_delay_summary()],
        ),
    ]


def _load(port: int, scale: Scale, pids: dict[str, list[int]] | None = None, rate: float = 0.0) -> Report:
    requests = [get_request(f"/orders/{orders.order_id(number)}") for number in range(ORDERS)]
    flow = Flow(name="read", requests=requests, ports=[port], connections=CONNECTIONS, rate=rate)
    return run(Plan(flows=[flow], warm_up=scale.warm_up, seconds=scale.seconds, pids=pids or {}))


def _answer_bytes(services: Services) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", services.port("query"))
    connection.request("GET", f"/orders/{orders.order_id(0)}")
    return len(connection.getresponse().read())


if __name__ == "__main__":
    sys.exit(run_row(measure))
