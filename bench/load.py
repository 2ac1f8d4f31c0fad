"""Load: a plan of requests and rates, and the report of what was measured.

A flow without a rate is a closed loop: each connection sends its next request after the answer to the last. It measures
throughput and says nothing about latency. A flow with a rate is an open loop: requests are due on a fixed schedule,
whether or not earlier ones were answered, and latency counts from when a request was *due*. A stall of the server
therefore shows in every request that was due meanwhile (no coordinated omission).

The client (`bench.load_client`) is a process of its own, so its processor time is known apart from the servers'.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one kind, in random order unless `in_order`; `connections` are spread over `ports`."""

    name: str
    requests: list[bytes]
    ports: list[int]
    connections: int = 32
    rate: float = 0.0  # requests per second; 0: closed loop
    in_order: bool = False
    drops_unsent: bool = False  # in an open loop: at the end, drops requests that wait for a connection
    read_port: int | None = None  # of a query service: reads each acknowledged order with its token


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    flows: list[Flow]
    warm_up: float
    seconds: float
    pids: dict[str, list[int]] = {}  # process ids by name; their use of cores is reported, children included


class FlowReport(msgspec.Struct, kw_only=True):
    """Latencies are in milliseconds; in an open loop from when the request was due."""

    name: str
    answers: int = 0  # of the measured time
    refused: int = 0  # of those
    accepted: int = 0  # acknowledged in the measured time, whenever due
    statuses: dict[int, int] = {}
    latencies: list[float] = []
    reads: list[float] = []  # from the acknowledgement to the answer of the query
    end_to_end: list[float] = []  # from when the command was due to the answer of the query
    send_delays: list[float] = []  # of the client itself, after a request was due


class Report(msgspec.Struct, kw_only=True):
    flows: list[FlowReport]
    seconds: float
    client_cpu: float  # cores
    cpu: dict[str, float]  # cores by name

    def per_second(self, flow: int = 0) -> float:
        return self.flows[flow].answers / self.seconds

    def accepted_per_second(self, flow: int = 0) -> float:
        return self.flows[flow].accepted / self.seconds

    def cpu_summary(self) -> str:
        """The cores that each process used, largest first."""
        shares = sorted({**self.cpu, "client": self.client_cpu}.items(), key=lambda item: -item[1])
        return "cores: " + ", ".join(f"{name} {share:.2f}" for name, share in shares)

    def send_delay_summary(self) -> str:
        delays = [delay for flow in self.flows for delay in flow.send_delays]
        return f"of each latency the client itself is {statistics.median(delays):.1f} ms (median)"


class LoadFailed(Exception):
    """Requests failed, so the figures mean nothing."""


def run(plan: Plan, refusals: Collection[int] = ()) -> Report:
    """Runs the plan in a process of its own. `refusals` are the statuses above 299 that count as answers.

    Raises LoadFailed when the client fails or any other status above 299 is answered.
    """
    command = [sys.executable, "-m", "bench.load_client"]
    ended = subprocess.run(command, input=msgspec.msgpack.encode(plan), capture_output=True, cwd=ROOT, check=False)
    if ended.returncode:
        raise LoadFailed(ended.stderr.decode().strip())
    try:
        report = msgspec.msgpack.decode(ended.stdout, type=Report)
    except msgspec.DecodeError as error:
        output = f"{len(ended.stdout):,} bytes, on standard error: {ended.stderr.decode().strip() or 'nothing'}"
        raise LoadFailed(f"the load client's report cannot be read ({error}): {output}") from error
    for flow in report.flows:
        failed = {status: count for status, count in flow.statuses.items() if status >= 300 and status not in refusals}
        if failed:
            raise LoadFailed(f"{flow.name}: of {sum(flow.statuses.values())} answers, by status: {failed}")
    return report
