"""Row 4: `GET /orders/{id}` over 10,000 orders at random, by one query process.

After the first seconds nearly all are answered from its memory. What it can do without that is reported beside it.
Requests a second in a closed loop. Latency in an open loop, both sides at the same rate: 60 % of what the query
process can do. In many short rounds, because a p99 of a few milliseconds is spoiled by any hiccup of the machine.
"""

from __future__ import annotations

import http.client
import sys
from collections.abc import Mapping
from dataclasses import replace

from bench import orders
from bench.bare import Bare
from bench.load import Flow, Plan, Report, run
from bench.result import Goal, Result, percentile
from bench.run import alone
from bench.scale import Scale
from bench.servers import Servers, Services, running
from bench.visibility import wait_until_read
from bench.wire import get

ORDERS = 10_000
CONNECTIONS = 32
LOAD = 0.6  # of what the query process can do


def measure(servers: Servers, scale: Scale) -> list[Result]:
    database = servers.database()
    orders.place(database, range(ORDERS))
    results = _measure(servers, database, scale, {}, "")
    if scale.name != "check":
        results += _measure(servers, database, scale, {"REMEMBERED_DOCUMENT_BYTES": "0"}, ", each read from Valkey")
    return results


def _measure(servers: Servers, database: str, scale: Scale, settings: Mapping[str, str], how: str) -> list[Result]:
    with servers.services(database, queries=1, settings=settings) as services:
        wait_until_read(services, orders.order_id(ORDERS - 1))
        with running(Bare(servers.directory, _answer_bytes(services))) as bare:
            return _in_turns((services.port("query"), bare.port), scale, services.watch, how)


def _in_turns(ports: tuple[int, int], scale: Scale, watch: dict[str, list[int]], how: str) -> list[Result]:
    """Where it says `how`, the service is not as it comes: there are no goals, and fewer rounds."""
    rounds = 1 if how else scale.rounds
    closed = [(_load(ports[0], scale, watch), _load(ports[1], scale)) for _ in range(rounds)]
    rate = LOAD * min(ours.per_second() for ours, _ in closed)
    short = replace(scale, seconds=max(1.0, scale.seconds / 2), warm_up=scale.warm_up / 2)
    short_rounds = 1 if how else max(5, 2 * scale.rounds + 1)
    opened = [(_load(ports[0], short, watch, rate), _load(ports[1], short, {}, rate)) for _ in range(short_rounds)]
    return [
        Result(
            row=4,
            label=f"GET /orders/{{id}}{how}",
            measure=f"`GET /orders/{{id}}` over {ORDERS:,} random orders, one query process,"
            f" {CONNECTIONS} connections{how}",
            unit="requests/s",
            ours=[ours.per_second() for ours, _ in closed],
            against="a bare FastAPI route, constant bytes of that size",
            theirs=[theirs.per_second() for _, theirs in closed],
            goal=None if how else Goal("at least", 0.8),
            n=sum(ours.flows[0].answers for ours, _ in closed),
            client_cpu=max(report.client_cpu for pair in closed for report in pair),
            notes=[closed[-1][0].cores_in_words()],
        ),
        Result(
            row=4,
            label=f"GET /orders/{{id}}, p99{how}",
            measure=f"its p99 in an open loop at {LOAD:.0%} of that, {rate:,.0f}/s{how}",
            unit="ms",
            ours=[percentile(ours.flows[0].latencies, 0.99) for ours, _ in opened],
            against="the bare route at the same rate",
            theirs=[percentile(theirs.flows[0].latencies, 0.99) for _, theirs in opened],
            goal=None if how else Goal("at most", 1.5),
            n=sum(ours.flows[0].answers for ours, _ in opened),
            client_cpu=max(report.client_cpu for pair in opened for report in pair),
            notes=[opened[-1][0].lateness_in_words()],
        ),
    ]


def _load(port: int, scale: Scale, watch: dict[str, list[int]] | None = None, rate: float = 0.0) -> Report:
    requests = [get(f"/orders/{orders.order_id(number)}") for number in range(ORDERS)]
    flow = Flow(name="read", requests=requests, ports=[port], connections=CONNECTIONS, rate=rate)
    return run(Plan(flows=[flow], warm_up=scale.warm_up, seconds=scale.seconds, watch=watch or {}))


def _answer_bytes(services: Services) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", services.port("query"))
    connection.request("GET", f"/orders/{orders.order_id(0)}")
    return len(connection.getresponse().read())


if __name__ == "__main__":
    sys.exit(alone(measure))
