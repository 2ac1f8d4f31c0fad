"""Row 3: `POST /orders` with two lines, durable, one command process, against a bare FastAPI route."""

from __future__ import annotations

import sys

from bench import group_sizes, orders
from bench.bare_route import BareService
from bench.http_connection import json_request
from bench.interleave import interleave
from bench.load import Flow, Plan, Report, run
from bench.result import Goal, Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Servers, started

CONNECTIONS = 32


def measure(servers: Servers, scale: Scale) -> list[Result]:
    bare = BareService(servers.directory)
    short = scale.short if scale.rounds > 1 else scale
    with servers.services(servers.database(), commands=1) as services, started(bare):
        reports, bare_reports = interleave(
            short.rounds,
            lambda: _load(services.port("command"), short, services.pids),
            lambda: _load(bare.port, short, {}),
        )
        grouped = group_sizes.of_service(services.port("command")).summary()
    last = reports[-1]
    return [
        Result(
            row=3,
            label="POST /orders",
            measure="`POST /orders`, two lines, one command process",
            unit="requests/s",
            ours=[report.per_second() for report in reports],
            against="a bare FastAPI route",
            theirs=[report.per_second() for report in bare_reports],
            goal=Goal("at least", 0.55),
            n=sum(report.flows[0].answers for report in reports),
            client_cpu=max(report.client_cpu for report in (*reports, *bare_reports)),
            notes=[last.cpu_summary(), grouped],
        )
    ]


def _load(port: int, scale: Scale, pids: dict[str, list[int]]) -> Report:
    flow = Flow(
        name="place", requests=[json_request("POST", "/orders", orders.BODY)], ports=[port], connections=CONNECTIONS
    )
    return run(Plan(flows=[flow], warm_up=scale.warm_up, seconds=scale.seconds, pids=pids))


if __name__ == "__main__":
    sys.exit(run_row(measure))
