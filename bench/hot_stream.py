"""Row 14: commands on one stream against commands on distinct streams, 32 clients in a closed loop.

Each command changes the shipping address of an order and so appends one event. All orders are changed once before, so
the command service has their states in its cache.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from bench import group_sizes, orders
from bench.interleave import interleave
from bench.load import Flow, Plan, Report, run
from bench.result import Goal, Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Servers, Services

CONNECTIONS = 32
ORDERS = 2_000
HOT_ORDER = ORDERS  # its number
FIRST_CHANGE_SECONDS = 2.0
ADDRESSES = 1_000  # a request repeats after so many: two in flight never ask for the same address


def measure(servers: Servers, scale: Scale) -> list[Result]:
    database = servers.database()
    orders.place(database, range(ORDERS + 1))
    short = scale.short if scale.rounds > 1 else scale
    with servers.services(database, commands=1) as services:
        _load(services, orders.address_changes(range(ORDERS + 1), 1), replace(short, seconds=FIRST_CHANGE_SECONDS))
        hot, distinct = interleave(
            short.rounds,
            lambda: _load(services, orders.address_changes([HOT_ORDER], ADDRESSES), short),
            lambda: _load(services, orders.address_changes(range(ORDERS), 2), short),
        )
        grouped = group_sizes.of_service(services.port("command")).summary()
    return [
        Result(
            row=14,
            label="commands on one stream",
            measure=f"commands on one stream, {CONNECTIONS} clients",
            unit="commands/s",
            ours=[report.per_second() for report in hot],
            against=f"commands on {ORDERS:,} streams",
            theirs=[report.per_second() for report in distinct],
            goal=Goal("at least", 0.6),
            n=sum(report.flows[0].answers for report in hot),
            client_cpu=max(report.client_cpu for report in (*hot, *distinct)),
            notes=[hot[-1].cpu_summary(), f"both sides together: {grouped}"],
        )
    ]


def _load(services: Services, requests: list[bytes], scale: Scale) -> Report:
    ports = services.ports("command")
    flow = Flow(name="change", requests=requests, ports=ports, connections=CONNECTIONS, in_order=True)
    return run(Plan(flows=[flow], warm_up=scale.warm_up, seconds=scale.seconds, pids=services.pids))


if __name__ == "__main__":
    sys.exit(run_row(measure))
