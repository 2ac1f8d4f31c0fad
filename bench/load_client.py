"""The load client, `python -m bench.load_client`: a plan on standard input, its report on standard output."""

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

TICK_SECONDS = 0.001  # the finest that the event loop's timers are
LAST_ANSWERS_SECONDS = 20.0


class _Clock:
    """Since when a plan runs, and which of its time counts."""

    def __init__(self, plan: Plan) -> None:
        self.began = perf_counter()
        self.counts_from = self.began + plan.warm_up
        self.ends = self.counts_from + plan.seconds

    def counts(self, at: float) -> bool:
        return self.counts_from <= at < self.ends


class _Stream:
    """One flow under way."""

    def __init__(self, flow: Flow, clock: _Clock, wires: list[HttpConnection], readers: list[HttpConnection]) -> None:
        self._flow = flow
        self._clock = clock
        self._next = 0
        # In turns: a server closes a connection that was idle for some seconds.
        self._idle = deque(wires)
        self._readers = deque(readers)
        self._unread: deque[tuple[bytes, float, float]] = deque()
        self._under_way = 0
        self._due: deque[float] = deque()
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
            for wire in idle:
                self._send(wire, perf_counter())

    def tick(self, now: float) -> None:
        """Sends what is due by now."""
        if not self.scheduled:
            return
        while (due := self._clock.began + self._sent / self._flow.rate) <= min(now, self._clock.ends):
            self._sent += 1
            self._due.append(due)
            if self._clock.counts(due):
                self.measured.late.append((now - due) * 1_000)
        if self._flow.drops_unsent and now >= self._clock.ends:
            self._due.clear()
        while self._due and self._idle:
            self._send(self._idle.popleft(), self._due.popleft())

    @property
    def finished(self) -> bool:
        return not (self._under_way or self._due or self._unread)

    def _request(self) -> bytes:
        requests = self._flow.requests
        if not self._flow.in_order:
            return random.choice(requests)
        self._next += 1
        return requests[(self._next - 1) % len(requests)]

    def _send(self, wire: HttpConnection, due: float) -> None:
        self._under_way += 1
        wire.send(self._request(), lambda status, body: self._answered(wire, due, status, body))

    def _answered(self, wire: HttpConnection, due: float, status: int, body: bytes) -> None:
        now = perf_counter()
        self._under_way -= 1
        self._count(due, now, status)
        if self._flow.read_port is not None and status < 300:
            self._unread.append((_question(body), due, now))
            self._read()
        if not self.scheduled:
            if now < self._clock.ends:
                self._send(wire, now)
        elif self._due:
            self._send(wire, self._due.popleft())
        else:
            self._idle.append(wire)

    def _count(self, due: float, now: float, status: int) -> None:
        self._statuses[status] += 1
        self.measured.accepted += status < 300 and self._clock.counts(now)
        if self._clock.counts(due if self.scheduled else now):
            self.measured.answers += 1
            self.measured.refused += status >= 300
            self.measured.latencies.append((now - due) * 1_000)

    def _read(self) -> None:
        while self._unread and self._readers:
            wire, (question, due, acknowledged) = self._readers.popleft(), self._unread.popleft()
            self._ask(wire, question, due, acknowledged)

    def _ask(self, wire: HttpConnection, question: bytes, due: float, acknowledged: float) -> None:
        def answered(status: int, _: bytes) -> None:
            now = perf_counter()
            self._under_way -= 1
            self._statuses[status] += 1
            if self._clock.counts(due):
                self.measured.reads.append((now - acknowledged) * 1_000)
                self.measured.end_to_end.append((now - due) * 1_000)
            self._readers.append(wire)
            self._read()

        self._under_way += 1
        wire.send(question, answered)


class _Acknowledgement(msgspec.Struct):
    aggregate_id: str
    consistency_token: str


_decoder = msgspec.json.Decoder(_Acknowledgement)


def _question(acknowledgement: bytes) -> bytes:
    said = _decoder.decode(acknowledgement)
    return get_request(
        f"/orders/{said.aggregate_id}", **{"Consistency-Token": said.consistency_token, "Prefer": "wait=10"}
    )


class _Watch:
    """Processor time of processes, with the children that they have at first, between two moments."""

    def __init__(self, watched: dict[str, list[int]]) -> None:
        # Looking for children reads all of /proc. That takes ten milliseconds, in which nothing is sent, so it is done
        # before the load begins.
        self._watched = {name: [one for pid in pids for one in _family(pid)] for name, pids in watched.items()}
        self.begin()

    def begin(self) -> None:
        self._before = self._used()
        self._client = _client_seconds()
        self._since = perf_counter()

    def shares(self) -> tuple[float, dict[str, float]]:
        took = perf_counter() - self._since
        client = (_client_seconds() - self._client) / took
        return client, {name: (used - self._before[name]) / took for name, used in self._used().items()}

    def _used(self) -> dict[str, float]:
        return {name: sum(map(_seconds, processes)) for name, processes in self._watched.items()}


def _client_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _seconds(process: psutil.Process) -> float:
    """Of the process, and of its children that have ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0  # it is among its parent's children that have ended
    ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)  # not on every system
    return float(ended + times.user + times.system)


async def _connect(flow: Flow) -> tuple[list[HttpConnection], list[HttpConnection]]:
    """(to send on, to read what was acknowledged on)"""
    wires = [await HttpConnection.open(flow.ports[number % len(flow.ports)]) for number in range(flow.connections)]
    return wires, [] if flow.read_port is None else [await HttpConnection.open(flow.read_port) for _ in wires]


async def _run(plan: Plan) -> Report:
    connections = [await _connect(flow) for flow in plan.flows]
    watch = _Watch(plan.watch)
    clock = _Clock(plan)
    streams = [_Stream(flow, clock, *wires) for flow, wires in zip(plan.flows, connections, strict=True)]
    for stream in streams:
        stream.begin()
    await _until(clock.counts_from, streams)
    watch.begin()
    await _until(clock.ends, streams)
    client_cpu, cpu = watch.shares()
    while not all(stream.finished for stream in streams):
        await _until(perf_counter() + TICK_SECONDS, streams)
        if perf_counter() > clock.ends + LAST_ANSWERS_SECONDS:
            raise LoadFailed("answers did not come")
    if any(wire.broken.done() for wires, readers in connections for wire in (*wires, *readers)):
        raise LoadFailed("a connection was closed")
    flows = [stream.measured for stream in streams]
    return Report(flows=flows, seconds=plan.seconds, client_cpu=client_cpu, cpu=cpu)


async def _until(moment: float, streams: list[_Stream]) -> None:
    tick = TICK_SECONDS if any(stream.scheduled for stream in streams) else 0.01
    while (now := perf_counter()) < moment:
        for stream in streams:
            stream.tick(now)
        await asyncio.sleep(min(tick, moment - now))


def main() -> None:
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)
    gc.disable()  # a pause of the client must not be taken for one of the server
    try:
        report = uvloop.run(_run(plan))
    except (LoadFailed, OSError) as error:
        sys.exit(str(error))
    # Not `sys.stdout.buffer`: under PYTHONUNBUFFERED that is the bare file, which may write a part and say so.
    with open(sys.stdout.fileno(), "wb", closefd=False) as whole:
        whole.write(msgspec.msgpack.encode(report))


if __name__ == "__main__":
    main()
