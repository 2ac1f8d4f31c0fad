"""Row 11: throughput of two and four command or query processes, up to the number of cores. No goal: the notes name the
bottleneck."""

from __future__ import annotations

import os
import sys

from bench import orders
from bench.http_connection import get_request, json_request
from bench.load import Flow, Plan, Report, run
from bench.read_your_writes import wait_until_read
from bench.result import Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Servers

COUNTS = (1, 2, 4)
ORDERS = 10_000
CONNECTIONS = 32
BUSY = 0.9  # of a core, or of all cores


def measure(servers: Servers, scale: Scale) -> list[Result]:
    counts = [count for count in COUNTS if count <= (os.cpu_count() or 1)]
    results = []
    for name, load in (("command", _commands), ("query", _queries)):
        reports = {count: load(servers, scale, count) for count in counts}
        one = [report.per_second() for report in reports[1]]
        results += [
            Result(
                row=11,
                label=f"{count} {name} processes",
                measure=f"{count} {name} processes",
                unit="requests/s",
                ours=[report.per_second() for report in reports[count]],
                against=f"1 {name} process",
                theirs=one,
                n=sum(report.flows[0].answers for report in reports[count]),
                client_cpu=max(report.client_cpu for report in reports[count]),
                notes=[f"the limit: {bottleneck(reports[count][-1])}", reports[count][-1].cpu_summary()],
            )
            for count in counts
            if count > 1
        ]
        if counts == [1]:
            print(f"one core: {name} processes are not compared", file=sys.stderr)
    return results


def bottleneck(report: Report) -> str:
    """Names what limited the throughput, judged by processor time."""
    cores = os.cpu_count() or 1
    if report.client_cpu > BUSY:
        return "the load client"
    if report.client_cpu + sum(report.cpu.values()) > BUSY * cores:
        return f"all {cores} cores are busy"
    if full := [name for name, share in report.cpu.items() if share > BUSY and name not in ("postgres", "valkey")]:
        return f"the core of {', '.join(full)}"
    return "no core: the processes waited for the disk, for each other or for other programs"


def _commands(servers: Servers, scale: Scale, count: int) -> list[Report]:
    with servers.services(servers.database(), commands=count) as services:
        flow = Flow(
            name="place",
            requests=[json_request("POST", "/orders", orders.BODY)],
            ports=services.ports("command"),
            connections=CONNECTIONS,
        )
        return _loads(flow, scale, services.pids)


def _queries(servers: Servers, scale: Scale, count: int) -> list[Report]:
    database = servers.database()
    orders.place(database, range(ORDERS))
    with servers.services(database, queries=count) as services:
        wait_until_read(services, orders.order_id(ORDERS - 1))
        flow = Flow(
            name="read",
            requests=[get_request(f"/orders/{orders.order_id(number)}") for number in range(ORDERS)],
            ports=services.ports("query"),
            connections=CONNECTIONS,
        )
        return _loads(flow, scale, services.pids)


def _loads(flow: Flow, scale: Scale, pids: dict[str, list[int]]) -> list[Report]:
    """At most two rounds: the row has no goal."""
    plan = Plan(flows=[flow], warm_up=scale.warm_up, seconds=scale.short.seconds, pids=pids)
    return [run(plan) for _ in range(min(2, scale.rounds))]


if __name__ == "__main__":
    sys.exit(run_row(measure))
