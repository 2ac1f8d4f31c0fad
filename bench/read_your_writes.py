"""Row 5: read-your-writes latency, in an open loop at 30 % of the orders that a closed loop places.

The client reads each placed order with its Consistency-Token. Two times are measured: from the acknowledgement to the
answer of that query, and from when the order was *due* to that answer. No goal: latencies depend on the machine.
"""

from __future__ import annotations

import http.client
import sys
import time

from bench import group_sizes, orders
from bench.http_connection import json_request
from bench.load import Flow, FlowReport, Plan, Report, run
from bench.result import Result, percentile
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Servers, Services

LOAD = 0.3  # of the capacity
CONNECTIONS = 64
CATCH_UP_SECONDS = 60.0
PERCENTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


def measure(servers: Servers, scale: Scale) -> list[Result]:
    short = scale.short
    with servers.services(servers.database(), commands=1, queries=1) as services:
        capacity = run(_plan(services, short)).per_second()
        before = group_sizes.of_service(services.port("command"))
        reports = [_load(services, short, LOAD * capacity) for _ in range(short.rounds)]
        grouped = group_sizes.of_service(services.port("command")).summary(before)
    reads = [report.flows[0].reads for report in reports]
    end_to_end = [report.flows[0].end_to_end for report in reports]
    at_rate = f"at {LOAD * capacity:,.0f} orders/s"
    notes = [at_rate, reports[-1].cpu_summary(), reports[-1].send_delay_summary(), grouped]
    return [
        Result(
            row=5,
            label=f"{label}, p{100 * share:g}",
            measure=f"p{100 * share:g}, {what}, at {LOAD:.0%} of the capacity",
            unit="ms",
            ours=[percentile(each, share) for each in values],
            n=sum(report.flows[0].answers for report in reports),
            client_cpu=max(report.client_cpu for report in reports),
            notes=notes,
            curve={f"{100 * p:g}": percentile([one for each in values for one in each], p) for p in PERCENTILES},
        )
        for label, what, values in (
            ("acknowledged to shown", "acknowledged → shown", reads),
            ("due to shown", "due → shown", end_to_end),
        )
        for share in (0.5, 0.99)
    ]


def _load(services: Services, scale: Scale, rate: float) -> Report:
    report = run(_plan(services, scale, rate))
    _all_were_shown(report.flows[0])
    return report


def _plan(services: Services, scale: Scale, rate: float = 0.0) -> Plan:
    """A closed loop places orders alone; an open loop reads each of them as well."""
    flow = Flow(
        name="place and read" if rate else "place",
        requests=[json_request("POST", "/orders", orders.BODY)],
        ports=services.ports("command"),
        connections=CONNECTIONS,
        rate=rate,
        read_port=services.port("query") if rate else None,
    )
    return Plan(flows=[flow], warm_up=scale.warm_up, seconds=2 * scale.seconds, pids=services.pids)


def _all_were_shown(measured: FlowReport) -> None:
    assert len(measured.reads) == measured.answers, "an order of the measured time was not read"


def wait_until_read(services: Services, order_id: str, **headers: str) -> None:
    """Blocks until the query service shows this order, the last one of the log."""
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while not _shows(services.port("query"), order_id, headers):
        assert time.monotonic() < deadline, "the projector does not catch up"
        time.sleep(0.05)  # polls a condition in another process


def _shows(port: int, order_id: str, headers: dict[str, str]) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", f"/orders/{order_id}", headers=headers)
        return connection.getresponse().status == http.HTTPStatus.OK
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(run_row(measure))
