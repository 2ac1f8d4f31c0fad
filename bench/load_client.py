"""The load client, `python -m bench.load_client`: a plan on standard input, the report on standard output."""

from __future__ import annotations

import asyncio
import gc
import random
import resource
import sys
from collections import Counter, deque
from time import perf_counter

import msgspec
import psutil
import uvloop

from bench.http_connection import HttpConnection, get_request
from bench.load import Flow, FlowReport, LoadFailed, Plan, Report

TICK_SECONDS = 0.001  # the resolution of the event loop's timers
LAST_ANSWERS_SECONDS = 20.0


class _Clock:
    """The start of a plan and its measured time."""

    def __init__(self, plan: Plan) -> None:
        self.began = perf_counter()
        self.counts_from = self.began + plan.warm_up
        self.ends = self.counts_from + plan.seconds

    def counts(self, at: float) -> bool:
        return self.counts_from <= at < self.ends


class _RunningFlow:
    """Sends the requests of a flow and measures the answers."""

    def __init__(
        self, flow: Flow, clock: _Clock, connections: list[HttpConnection], readers: list[HttpConnection]
    ) -> None:
        self._flow = flow
        self._clock = clock
        self._next = 0
        # A queue: every connection is used often enough that the server keeps it open.
        self._idle = deque(connections)
        self._readers = deque(readers)
        self._unread: deque[tuple[bytes, float, float]] = deque()
        self._in_flight = 0
        self._overdue: deque[float] = deque()
        self._sent = 0
        self._statuses: Counter[int] = Counter()
        self.measured = FlowReport(name=flow.name, statuses=self._statuses)

    @property
    def scheduled(self) -> bool:
        """Whether it is an open loop."""
        return self._flow.rate > 0

    def begin(self) -> None:
        if not self.scheduled:
            idle, self._idle = self._idle, deque()
            for connection in idle:
                self._send(connection, perf_counter())

    def tick(self, now: float) -> None:
        """Sends the requests that are due by now."""
        if not self.scheduled:
            return
        while (due := self._clock.began + self._sent / self._flow.rate) <= min(now, self._clock.ends):
            self._sent += 1
            self._overdue.append(due)
            if self._clock.counts(due):
                self.measured.send_delays.append((now - due) * 1_000)
        if self._flow.drops_unsent and now >= self._clock.ends:
            self._overdue.clear()
        while self._overdue and self._idle:
            self._send(self._idle.popleft(), self._overdue.popleft())

    @property
    def finished(self) -> bool:
        return not (self._in_flight or self._overdue or self._unread)

    def _request(self) -> bytes:
        requests = self._flow.requests
        if not self._flow.in_order:
            return random.choice(requests)
        self._next += 1
        return requests[(self._next - 1) % len(requests)]

    def _send(self, connection: HttpConnection, due: float) -> None:
        self._in_flight += 1
        connection.send(self._request(), lambda status, body: self._answered(connection, due, status, body))

    def _answered(self, connection: HttpConnection, due: float, status: int, body: bytes) -> None:
        now = perf_counter()
        self._in_flight -= 1
        self._count(due, now, status)
        if self._flow.read_port is not None and status < 300:
            self._unread.append((_query(body), due, now))
            self._send_queries()
        if not self.scheduled:
            if now < self._clock.ends:
                self._send(connection, now)
        elif self._overdue:
            self._send(connection, self._overdue.popleft())
        else:
            self._idle.append(connection)

    def _count(self, due: float, now: float, status: int) -> None:
        self._statuses[status] += 1
        self.measured.accepted += status < 300 and self._clock.counts(now)
        if self._clock.counts(due if self.scheduled else now):
            self.measured.answers += 1
            self.measured.refused += status >= 300
            self.measured.latencies.append((now - due) * 1_000)

    def _send_queries(self) -> None:
        while self._unread and self._readers:
            connection, (query, due, acknowledged) = self._readers.popleft(), self._unread.popleft()
            self._send_query(connection, query, due, acknowledged)

    def _send_query(self, connection: HttpConnection, query: bytes, due: float, acknowledged: float) -> None:
        def answered(status: int, _: bytes) -> None:
            now = perf_counter()
            self._in_flight -= 1
            self._statuses[status] += 1
            if self._clock.counts(due):
                self.measured.reads.append((now - acknowledged) * 1_000)
                self.measured.end_to_end.append((now - due) * 1_000)
            self._readers.append(connection)
            self._send_queries()

        self._in_flight += 1
        connection.send(query, answered)


class _Acknowledgement(msgspec.Struct):
    aggregate_id: str
    consistency_token: str


_decoder = msgspec.json.Decoder(_Acknowledgement)


def _query(acknowledgement: bytes) -> bytes:
    """A read of the acknowledged order, with its token."""
    order = _decoder.decode(acknowledgement)
    headers = {"Consistency-Token": order.consistency_token, "Prefer": "wait=10"}
    return get_request(f"/orders/{order.aggregate_id}", **headers)


class _CpuMeter:
    """Cores used by processes and their children of the start, and by this client."""

    def __init__(self, pids_by_name: dict[str, list[int]]) -> None:
        # Before the load begins, because finding children reads all of /proc, which blocks for ten milliseconds.
        self._processes = {name: [one for pid in pids for one in _family(pid)] for name, pids in pids_by_name.items()}
        self.begin()

    def begin(self) -> None:
        self._before = self._used()
        self._client = _client_seconds()
        self._since = perf_counter()

    def cores(self) -> tuple[float, dict[str, float]]:
        took = perf_counter() - self._since
        client = (_client_seconds() - self._client) / took
        return client, {name: (used - self._before[name]) / took for name, used in self._used().items()}

    def _used(self) -> dict[str, float]:
        return {name: sum(map(_seconds, processes)) for name, processes in self._processes.items()}


def _client_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _seconds(process: psutil.Process) -> float:
    """Processor time of a process and its ended children."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0  # its parent counts it among its ended children
    ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)  # not on every system
    return float(ended + times.user + times.system)


async def _connect(flow: Flow) -> tuple[list[HttpConnection], list[HttpConnection]]:
    """Returns (connections for the requests, connections for the reads)."""
    connections = [
        await HttpConnection.open(flow.ports[number % len(flow.ports)]) for number in range(flow.connections)
    ]
    return connections, [] if flow.read_port is None else [
        await HttpConnection.open(flow.read_port) for _ in connections
    ]


async def _run(plan: Plan) -> Report:
    opened = [await _connect(flow) for flow in plan.flows]
    cpu_meter = _CpuMeter(plan.pids)
    clock = _Clock(plan)
    flows = [_RunningFlow(flow, clock, *connections) for flow, connections in zip(plan.flows, opened, strict=True)]
    for flow in flows:
        flow.begin()
    await _until(clock.counts_from, flows)
    cpu_meter.begin()
    await _until(clock.ends, flows)
    client_cpu, cpu = cpu_meter.cores()
    for flow in flows:
        flow.tick(perf_counter())  # sends what became due after the last tick
    while not all(flow.finished for flow in flows):
        await _until(perf_counter() + TICK_SECONDS, flows)
        if perf_counter() > clock.ends + LAST_ANSWERS_SECONDS:
            raise LoadFailed("answers did not come")
    if any(connection.broken.done() for connections, readers in opened for connection in (*connections, *readers)):
        raise LoadFailed("a connection was closed")
    measured = [flow.measured for flow in flows]
    return Report(flows=measured, seconds=plan.seconds, client_cpu=client_cpu, cpu=cpu)


async def _until(moment: float, flows: list[_RunningFlow]) -> None:
    tick = TICK_SECONDS if any(flow.scheduled for flow in flows) else 0.01
    while (now := perf_counter()) < moment:
        for flow in flows:
            flow.tick(now)
        await asyncio.sleep(min(tick, moment - now))


def main() -> None:
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)
    gc.disable()  # its pauses would be measured as latency
    try:
        report = uvloop.run(_run(plan))
    except (LoadFailed, OSError) as error:
        sys.exit(str(error))
    # Not `sys.stdout.buffer`, which under PYTHONUNBUFFERED is unbuffered and may write only a part.
    with open(sys.stdout.fileno(), "wb", closefd=False) as output:
        output.write(msgspec.msgpack.encode(report))


if __name__ == "__main__":
    main()
