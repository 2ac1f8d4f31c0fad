"""What is refused under overload, and how; that goodput holds is shown in `tests/faults/test_overload.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from command_service.admission import Limit, protocol
from shared import metrics
from tests.given_when_then import problem
from tests.running import free_ports, running_app

DELAY = 0.1
MOST = 1_000
ON_TIME, LATE = 0.001, 0.3  # seconds the event loop was late


def admits_beside(limit: Limit, in_progress: int) -> bool:
    """Whether a command of one more client is admitted beside those of so many, one each."""
    limit.in_progress, limit.in_progress_of = in_progress, dict.fromkeys(map(str, range(in_progress)), 1)
    return limit.admits("another")


class Process:
    """A limit and the time. Each second, `rate` commands want in while `in_progress` are."""

    def __init__(self) -> None:
        self.limit = Limit(DELAY, MOST)
        self._now = 100.0
        self.observe(ON_TIME, 2)

    def observe(self, late: float, seconds: float, rate: int = 1_000, in_progress: float = 50) -> None:
        turn = max(late, 0.02)
        admits_beside(self.limit, round(in_progress))
        for _ in range(round(seconds / turn)):
            self._now += turn
            for _ in range(round(rate * turn)):
                self.limit.admits("another")
            self.limit.observe(late, self._now)


class TestTheLimit:
    @pytest.mark.promise("overload", "A burst is not refused")
    def test_is_not_lowered_by_a_burst(self) -> None:
        process = Process()
        for _ in range(10):
            process.observe(0.5, 0.5)
            process.observe(ON_TIME, 0.1)
        assert not process.limit.is_lowered
        assert admits_beside(process.limit, MOST - 1)
        assert not admits_beside(process.limit, MOST)

    def test_is_not_lowered_by_one_long_stop(self) -> None:
        process = Process()
        process.observe(30.0, 30.0)
        process.observe(ON_TIME, 1)
        assert not process.limit.is_lowered

    @pytest.mark.promise("overload", "A standing delay lowers the admission limit")
    def test_follows_from_what_is_answered_in_time_once_the_delay_stands(self) -> None:
        process = Process()
        process.observe(LATE, 3, rate=1_000)
        assert process.limit.is_lowered
        assert process.limit.commands <= 1_000 * DELAY

    def test_goes_down_while_the_delay_stands_but_never_to_nothing(self) -> None:
        process = Process()
        process.observe(LATE, 3)
        before = process.limit.commands
        process.observe(LATE, 2)
        assert process.limit.commands < before
        process.observe(LATE, 200)
        assert admits_beside(process.limit, 7)

    def test_goes_up_while_it_refuses_without_a_delay(self) -> None:
        process = Process()
        process.observe(LATE, 3)
        before = process.limit.commands
        process.observe(ON_TIME, 1, in_progress=MOST)
        assert before < process.limit.commands < MOST

    def test_is_gone_as_soon_as_nothing_is_refused(self) -> None:
        process = Process()
        process.observe(LATE, 20)
        process.observe(ON_TIME, 1, in_progress=1)
        assert not process.limit.is_lowered

    def test_does_not_count_what_waits_for_the_log(self) -> None:
        limit = Limit(DELAY, MOST)
        limit.in_append = lambda: 30
        assert admits_beside(limit, MOST + 29)
        assert not admits_beside(limit, MOST + 30)

    def test_of_no_delay_is_none(self) -> None:
        assert admits_beside(Limit(0, MOST), 100_000)

    @given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 2_000)), max_size=100))
    def test_stays_within_its_bounds_whatever_happens(self, life: Iterable[tuple[float, int]]) -> None:
        process = Process()
        for late, in_progress in life:
            process.observe(late, max(late, 0.02), rate=100, in_progress=in_progress)
            assert admits_beside(process.limit, 7)
            assert not admits_beside(process.limit, MOST)


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})
    else:
        body = await Request(scope, receive).body()
        await Response(b"%d bytes" % len(body))(scope, receive, send)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Of a process that is full."""
    [port] = free_ports(1)
    async with (
        running_app(_application, port, protocol(Limit(DELAY, most=0))) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client


class TestARefusal:
    @pytest.mark.parametrize("path", ["/orders", "/orders/%22a%22/items?b=1", "/orders/%C3%A9"])
    async def test_is_a_problem_document_that_says_when_to_come_back(
        self, client: httpx.AsyncClient, path: str
    ) -> None:
        body = problem(await client.post(path, json={}), 503, "overloaded")
        assert body["instance"] == path.partition("?")[0]

    async def test_carries_the_clients_correlation_id(self, client: httpx.AsyncClient) -> None:
        answer = await client.delete("/orders/1/items/2", headers={"X-Correlation-ID": "checkout-42"})
        assert answer.headers["x-correlation-id"] == "checkout-42"

    async def test_is_counted(self, client: httpx.AsyncClient) -> None:
        before = _counted()
        await client.put("/orders/1/shipping-address", json={})
        assert _counted() == [count + 1 for count in before]

    async def test_is_for_commands_only(self, client: httpx.AsyncClient) -> None:
        for path in ("/livez", "/readyz", "/metrics", "/docs"):
            assert (await client.get(path)).status_code == 200

    @pytest.mark.parametrize("size", [0, 10, 500_000])
    async def test_leaves_the_connection_in_order(self, client: httpx.AsyncClient, size: int) -> None:
        for _ in range(3):
            problem(await client.post("/orders", content=b"x" * size), 503, "overloaded")
            assert (await client.get("/livez")).text == "0 bytes"

    async def test_is_given_in_turn_where_requests_are_sent_ahead(self, client: httpx.AsyncClient) -> None:
        command = b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
        last = b"POST /orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
        answer = await _exchange(client, command + command + last)
        assert answer.count(b"HTTP/1.1 503 Service Unavailable\r\n") == 3
        assert answer.count(b"connection: close\r\n") == 1

    async def test_ends_the_connection_of_who_waits_to_send_a_body(self, client: httpx.AsyncClient) -> None:
        command = b"POST /orders HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        answer = await _exchange(client, command)
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"connection: close\r\n" in answer

    async def test_does_not_overtake_the_answer_before_it(self, client: httpx.AsyncClient) -> None:
        query = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
        last = b"POST /orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
        answer = await _exchange(client, query + last)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def _counted() -> list[float]:
    counters = (metrics.ADMISSION_REFUSED, metrics.HTTP_REQUESTS.labels("PUT", "unmatched", 503))
    return [counter._value.get() for counter in counters]


async def _exchange(client: httpx.AsyncClient, sent: bytes) -> bytes:
    """What comes back until the connection is closed."""
    address = urlsplit(str(client.base_url))
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer
