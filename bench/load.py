"""Load: what is to be sent, at which rate, and what came of it.

A flow without a rate is a closed loop: each connection sends its next request when the last was answered. That shows
how much a server can do, and says nothing about latency. A flow with a rate is an open loop: requests are due on a
fixed schedule, whether or not earlier ones were answered, and latency is counted from when a request was *due*. A
server that stalls therefore shows in every request that was due meanwhile (no coordinated omission).

The client (`bench.load_client`) is a process of its own, so that what it costs can be told from what the servers cost.
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
    """Requests drawn at random, or in order; `connections` are spread over `ports`."""

    name: str
    requests: list[bytes]
    ports: list[int]
    connections: int = 32
    rate: float = 0.0  # a second; 0: closed loop
    in_order: bool = False
    drops_unsent: bool = False  # in an open loop: what could not be sent by the end is not sent any more
    read_port: int | None = None  # port of a query service that is asked for what was acknowledged, with its token


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    flows: list[Flow]
    warm_up: float
    seconds: float
    watch: dict[str, list[int]] = {}  # process ids whose share of a core is wanted, with their children


class FlowReport(msgspec.Struct, kw_only=True):
    """Latencies in milliseconds. In an open loop they count from when the request was due."""

    name: str
    answers: int = 0  # within the measured time
    refused: int = 0  # of those
    accepted: int = 0  # acknowledged within the measured time, whenever they were due
    statuses: dict[int, int] = {}
    latencies: list[float] = []
    reads: list[float] = []  # from the acknowledgement to the answered query
    end_to_end: list[float] = []  # from when the command was due to the answered query
    late: list[float] = []  # how much later than due the client itself noticed


class Report(msgspec.Struct, kw_only=True):
    flows: list[FlowReport]
    seconds: float
    client_cpu: float  # share of one core
    cpu: dict[str, float]

    def per_second(self, flow: int = 0) -> float:
        return self.flows[flow].answers / self.seconds

    def accepted_per_second(self, flow: int = 0) -> float:
        return self.flows[flow].accepted / self.seconds

    def cpu_summary(self) -> str:
        """Who was busy, as shares of one core."""
        shares = sorted({**self.cpu, "client": self.client_cpu}.items(), key=lambda item: -item[1])
        return "cores: " + ", ".join(f"{name} {share:.2f}" for name, share in shares)

    def send_delay_summary(self) -> str:
        late = sorted(late for flow in self.flows for late in flow.late)
        return f"of each latency the client itself is {statistics.median(late):.1f} ms (median)"


class LoadFailed(Exception):
    """The servers did not do what was asked of them, so there is nothing to measure."""


def run(plan: Plan, refusals: Collection[int] = ()) -> Report:
    """The load in a process of its own. `refusals` are statuses above 299 that it may be answered with.

    Raises LoadFailed when not all of it did what it should.
    """
    command = [sys.executable, "-m", "bench.load_client"]
    ended = subprocess.run(command, input=msgspec.msgpack.encode(plan), capture_output=True, cwd=ROOT, check=False)
    if ended.returncode:
        raise LoadFailed(ended.stderr.decode().strip())
    try:
        report = msgspec.msgpack.decode(ended.stdout, type=Report)
    except msgspec.DecodeError as error:
        said = f"{len(ended.stdout):,} bytes, and on its standard error: {ended.stderr.decode().strip() or 'nothing'}"
        raise LoadFailed(f"the load client's report cannot be read ({error}): {said}") from error
    for flow in report.flows:
        failed = {status: count for status, count in flow.statuses.items() if status >= 300 and status not in refusals}
        if failed:
            raise LoadFailed(f"{flow.name}: of {sum(flow.statuses.values())} answers, by status: {failed}")
    return report
