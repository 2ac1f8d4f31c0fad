"""Row 13: goodput of one command process at twice its capacity.

The capacity comes from a closed loop of 32 connections. The overload is twice that rate, in an open loop on many
connections whose client ignores `Retry-After`. The capacity is measured again afterwards; the baseline is the mean of
before and after.
"""

from __future__ import annotations

import itertools
import statistics
import sys

import psutil

from bench import orders
from bench.http_connection import json_request
from bench.load import Flow, Plan, Report, run
from bench.result import Goal, Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Servers

CONNECTIONS = 32
OVERLOADED_CONNECTIONS = 600
REFUSED = 503


def measure(servers: Servers, scale: Scale) -> list[Result]:
    overloaded: list[Report] = []
    more_memory: list[int] = []
    with servers.services(servers.database(), commands=1) as services:
        port, pids = services.port("command"), services.pids
        (pid,) = pids["command"]
        peaks = [_peak(port, scale)]
        for _ in range(scale.rounds):
            before = psutil.Process(pid).memory_info().rss
            overloaded.append(_overload(port, 2 * peaks[-1], scale.overload, pids))
            more_memory.append(psutil.Process(pid).memory_info().rss - before)
            peaks.append(_peak(port, scale))
    last = overloaded[-1]
    refused = last.flows[0].refused / last.seconds
    return [
        Result(
            row=13,
            label="orders placed at 2x the load",
            measure="orders placed at twice the capacity of a command process",
            unit="orders/s",
            ours=[report.accepted_per_second() for report in overloaded],
            against="its capacity",
            theirs=[statistics.fmean(around) for around in itertools.pairwise(peaks)],
            goal=Goal("at least", 0.9),
            n=sum(report.flows[0].answers for report in overloaded),
            client_cpu=max(report.client_cpu for report in overloaded),
            notes=[
                f"{refused:,.0f}/s were refused in the last round",
                f"right afterwards {peaks[-1]:,.0f}/s were placed, before {peaks[-2]:,.0f}/s",
                f"it took {max(more_memory) / 2**20:.1f} MiB more memory at most",
                last.cpu_summary(),
            ],
        )
    ]


def _peak(port: int, scale: Scale) -> float:
    return run(Plan(flows=[_orders(port, CONNECTIONS)], warm_up=scale.warm_up, seconds=scale.seconds)).per_second()


def _overload(port: int, rate: float, seconds: float, pids: dict[str, list[int]]) -> Report:
    flow = _orders(port, OVERLOADED_CONNECTIONS, rate)
    return run(Plan(flows=[flow], warm_up=2.0, seconds=seconds, pids=pids), refusals={REFUSED})


def _orders(port: int, connections: int, rate: float = 0.0) -> Flow:
    request = json_request("POST", "/orders", orders.BODY)
    return Flow(name="place", requests=[request], ports=[port], connections=connections, rate=rate, drops_unsent=True)


if __name__ == "__main__":
    sys.exit(run_row(measure))
