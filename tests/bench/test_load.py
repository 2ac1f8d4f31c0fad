"""The load client, against servers that answer, stall and refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.http_connection import get_request
from bench.load import Flow, FlowReport, LoadFailed, Plan, run

pytestmark = pytest.mark.subprocess

CONNECTIONS = 4
RATE = 400.0
STALL_SECONDS = 0.3


class Shop:
    """Answers every request with `status`, at once unless it stalls."""

    def __init__(self, status: int = 200) -> None:
        self._status = status
        self._open = asyncio.Event()
        self._open.set()
        self.port = 0
        self.answered = 0

    def stall(self) -> None:
        self._open.clear()
        asyncio.get_running_loop().call_later(STALL_SECONDS, self._open.set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await self._open.wait()
                self.answered += 1
                writer.write(b"HTTP/1.1 %d Fine\r\ncontent-length: 2\r\n\r\n{}" % self._status)
                if self.answered == RATE // 4:
                    self.stall()
        except asyncio.IncompleteReadError:
            writer.close()


@asynccontextmanager
async def shop(status: int = 200) -> AsyncIterator[Shop]:
    one = Shop(status)
    async with await asyncio.start_server(one.serve, "127.0.0.1", 0) as server:
        one.port = server.sockets[0].getsockname()[1]
        yield one


def flow(port: int, rate: float) -> Flow:
    return Flow(name="read", requests=[get_request("/")], ports=[port], connections=CONNECTIONS, rate=rate)


async def load(port: int, rate: float) -> FlowReport:
    report = await asyncio.to_thread(run, Plan(flows=[flow(port, rate)], warm_up=0.05, seconds=1.0))
    return report.flows[0]


def slow(measured: FlowReport) -> int:
    """Answers that took at least a third of the stall."""
    return sum(latency > 1_000 * STALL_SECONDS / 3 for latency in measured.latencies)


async def test_a_stall_shows_in_every_request_that_was_due_meanwhile() -> None:
    async with shop() as one:
        measured = await load(one.port, RATE)
    assert measured.answers == pytest.approx(RATE, abs=1)  # one may be due at either edge of the second
    assert slow(measured) >= RATE * STALL_SECONDS / 2 > CONNECTIONS


async def test_a_closed_loop_hides_a_stall_and_so_is_no_measure_of_latency() -> None:
    async with shop() as one:
        measured = await load(one.port, 0.0)
    assert measured.answers > 0
    assert slow(measured) <= CONNECTIONS


async def test_refusals_are_not_measured() -> None:
    async with shop(status=503) as one:
        with pytest.raises(LoadFailed, match="503"):
            await load(one.port, RATE)


async def test_a_server_that_is_gone_is_not_measured() -> None:
    async with shop() as one:
        port = one.port
    with pytest.raises(LoadFailed, match="refused"):
        await load(port, RATE)
