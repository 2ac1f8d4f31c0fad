"""Row 10: resident memory of each process after many orders, each placed over HTTP and read with its token.

30,000 orders by default; a million with `--full`.
"""

from __future__ import annotations

import sys

import psutil

from bench import orders
from bench.http_connection import json_request
from bench.load import Flow, Plan, run
from bench.result import Goal, Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Servers, Services

FIRST = 10_000
CONNECTIONS = 32
OURS = ("command", "projector", "query")


def measure(servers: Servers, scale: Scale) -> list[Result]:
    with servers.services(servers.database(), commands=1, queries=1) as services:
        first = placed = _place(services, min(FIRST, scale.memory_orders // 2))
        early = _resident(services)
        placed += _place(services, scale.memory_orders - placed)
        late = _resident(services)
    return [
        Result(
            row=10,
            label=f"memory, {name}",
            measure=f"memory of the {name} process, {placed:,} orders",
            unit="MiB",
            ours=[late[name]],
            against=f"{first:,} orders",
            theirs=[early[name]],
            goal=Goal("at most", 1.2),
            n=placed,
        )
        for name in OURS
    ]


def _place(services: Services, count: int) -> int:
    """Places at least `count` orders; returns how many."""
    placed = 0
    while placed < count:
        flow = Flow(
            name="place and read",
            requests=[json_request("POST", "/orders", orders.BODY)],
            ports=services.ports("command"),
            connections=CONNECTIONS,
            read_port=services.port("query"),
        )
        report = run(Plan(flows=[flow], warm_up=0.0, seconds=1.0))
        placed += report.flows[0].statuses[201]
    return placed


def _resident(services: Services) -> dict[str, float]:
    """MiB by process."""
    pids_by_name = services.pids
    return {name: psutil.Process(pids_by_name[name][0]).memory_info().rss / 2**20 for name in OURS}


if __name__ == "__main__":
    sys.exit(run_row(measure))
