"""How the importer treats a command service that is slow, overloaded or unreliable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from cli.bearer_token import BearerToken
from cli.importer import submitter
from cli.importer.online_retail import Item, OrderRequest, Placement
from cli.importer.order_submitter import OrderSubmitter
from cli.importer.submitter import ImportSummary

CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"


def placements(count: int) -> list[Placement]:
    items = [Item("85123A", 1, 255)]
    order = OrderRequest("1", "17850", items, "customer-17850", datetime(2010, 12, 1, tzinfo=UTC))
    return [Placement(order, (1,))] * count


class FakeService:
    """Answers each request with the bytes that `answer` returns for its number, from 1; with nothing for None."""

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        self._answer = answer
        self.requests = 0
        self.connections = 0
        self.most_connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.most_connections = max(self.most_connections, self.connections)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(length.partition(b":")[2]))
                self.requests += 1
                answer = self._answer(self.requests)
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
                    if answer not in (CREATED, BUSY):
                        return
        except (asyncio.IncompleteReadError, ConnectionError):  # the importer closed the connection
            pass
        finally:
            self.connections -= 1
            writer.close()


@asynccontextmanager
async def running(service: FakeService) -> AsyncIterator[str]:
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def submit(service: FakeService, count: int, *, concurrency: int = 1, patience: float = 30.0) -> ImportSummary:
    summary = ImportSummary()
    async with running(service) as url:
        orders = OrderSubmitter(url, url, BearerToken(None), concurrency, patience, summary)
        await orders.submit(placements(count), on_settled=lambda: None)
    return summary


async def test_no_more_connections_are_open_than_the_concurrency_allows() -> None:
    service = FakeService(lambda _number: CREATED)
    assert (await submit(service, 100, concurrency=4)).accepted == 100
    assert service.requests == 100
    assert service.most_connections <= 4


@pytest.mark.parametrize("answer", [BUSY, b"", CREATED[:-1], b"SSH-2.0-OpenSSH_9.6\r\n"])
async def test_an_order_without_an_outcome_is_submitted_again(answer: bytes) -> None:
    service = FakeService(lambda number: answer if number == 1 else CREATED)
    assert (await submit(service, 2)).accepted == 2
    assert service.requests == 3


async def test_a_request_without_an_answer_in_time_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitter, "ANSWER_SECONDS", 0.2)
    service = FakeService(lambda number: None if number == 1 else CREATED)
    assert (await submit(service, 1)).accepted == 1
    assert service.requests == 2


async def test_without_an_outcome_within_its_patience_nothing_is_counted_and_the_reason_is_kept() -> None:
    summary = await submit(FakeService(lambda _number: BUSY), 3, patience=0.3)
    assert summary.settled == 0
    assert summary.last_error == "503 Service Unavailable"
