"""What every process takes at most, with the largest orders that there may be and everything full of them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis
from uuid_utils.compat import uuid7

from cli.stack.embedded_server import HOST
from shared.aggregates.order import ORDER, OrderLine, OrderPlaced, ShippingAddressChanged
from shared.eventstore import codec
from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, AppendStatus, NewEvent
from tests.faults.operator import Operator
from tests.faults.shop import Process, Shop
from tests.running import eventually

MIB = 2**20
BODY_BYTES = 512 * 1024
LINES = 2_000
ORDERS = 549
PROJECTOR_MIB = 512
SERVICE_MIB = 400

pytestmark = pytest.mark.timeout(500)
_random = Random(1)


def large_lines() -> list[OrderLine]:
    """As many as an order may have, about as long as a body may be. For a text with such a character, Python takes four
    bytes for each."""
    start = "\N{TEACUP WITHOUT HANDLE}" * 28 + _random.randbytes(30).hex()
    return [OrderLine(f"P{number}", 1, 100, f"{start}{number:08}") for number in range(LINES)]


def large_order() -> OrderPlaced:
    return OrderPlaced("alice", "GBP", tuple(large_lines()), "home")


def new(event: Any) -> NewEvent:
    return NewEvent(uuid7(), *codec.encode(event), "{}", datetime.now(UTC))


async def record(connection: asyncpg.Connection[asyncpg.Record], orders: int, changes: int) -> None:
    """Large orders, and then changes of each of them in turn: a page of those concerns every order."""
    for number in range(orders):
        stream = ORDER.stream_of(str(number))
        await append(connection, [AppendRequest.of_stream(stream, 0, uuid7(), [new(large_order())])])
    await change(connection, orders, changes)


async def change(connection: asyncpg.Connection[asyncpg.Record], orders: int, changes: int) -> None:
    """Changes of each order in turn."""
    names = [ORDER.stream_of(str(number)) for number in range(orders)]
    for version in range(1, changes + 1):
        moved = new(ShippingAddressChanged(f"home {version}"))
        await append(
            connection,
            [AppendRequest.of_stream(name, version, uuid7(), [moved._replace(event_id=uuid7())]) for name in names],
        )


async def append(connection: asyncpg.Connection[asyncpg.Record], group: list[AppendRequest]) -> None:
    results = await event_log.append_group(connection, group)
    assert {result.status for result in results} == {AppendStatus.APPENDED}


def peak_mib(pid: int | None) -> float:
    """The most memory that the process ever had."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


async def is_at(shop: Shop, position: int) -> bool:
    return await shop.position() == position


@pytest.mark.promise("read-models", "Orders of the largest size are projected, rebuilt, and folded again after a flush")
@pytest.mark.parametrize("partitions", [1, 16])
@pytest.mark.bound("projector", "cached pages of the log")
@pytest.mark.bound("rebuild, verification", "fold of the log")
@pytest.mark.bound("rebuild, verification", "documents compared in one step")
@pytest.mark.bound("rebuild, verification", "lines of rollups")
async def test_the_largest_orders_are_projected_healed_and_rebuilt(
    shop: Shop, connection: asyncpg.Connection[asyncpg.Record], partitions: int
) -> None:
    orders = ORDERS if partitions == 1 else ORDERS // 4
    await record(connection, orders, changes=1)
    head = (await event_log.read_head(connection)).position
    shop.projector = shop.process("projector", PROJECTOR_PARTITIONS=f"orders={partitions}")
    await shop.start(shop.projector)
    await eventually(lambda: is_at(shop, head), seconds=150)
    assert peak_mib(shop.projector.pid) < PROJECTOR_MIB

    async with Redis.from_url(shop.servers.redis_url) as redis:
        await redis.flushall()
    await eventually(lambda: is_at(shop, head), seconds=150)
    assert peak_mib(shop.projector.pid) < PROJECTOR_MIB

    operator = Operator(shop.servers)
    rebuilding = await operator.start("rebuild", "orders", PROJECTOR_PARTITIONS=f"orders={partitions}")
    watching = asyncio.create_task(highest(rebuilding))
    output = (await rebuilding.communicate())[0].decode()
    assert rebuilding.returncode == 0, output
    assert await watching < PROJECTOR_MIB
    assert peak_mib(shop.projector.pid) < PROJECTOR_MIB


async def highest(process: asyncio.subprocess.Process) -> float:
    """The most memory that the process has until it ends."""
    most = 0.0
    while process.returncode is None:
        try:
            most = max(most, peak_mib(process.pid))
        except (OSError, ValueError):  # it has ended
            break
        await asyncio.sleep(0.02)
    return most


def large_body() -> bytes:
    """Without an id of its own."""
    items = [
        {"product_id": line.product_id, "product_name": line.product_name, "quantity": 1, "unit_price": 100}
        for line in large_lines()
    ]
    body = {"customer_id": "alice", "currency": "GBP", "shipping_address_id": "home"}
    text = json.dumps({**body, "items": items}, ensure_ascii=False, separators=(",", ":")).encode()
    assert BODY_BYTES * 0.9 < len(text) <= BODY_BYTES, len(text)
    return text


@pytest.mark.promise("memory", "The command service stays below 400 MB, whatever clients send")
async def test_clients_that_place_the_largest_orders_do_not_fill_the_command_service(shop: Shop) -> None:
    await shop.start(shop.command)
    outcomes: set[int] = set()
    body = large_body()

    async def place(client: httpx.AsyncClient) -> None:
        for _ in range(5):
            answer = await client.post("/orders", content=body, headers={"Content-Type": "application/json"})
            outcomes.add(answer.status_code)

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(shop.command, number)) for number in range(1, 7)]
        await asyncio.gather(*(place(client) for client in clients for _ in range(20)))
    assert 201 in outcomes
    assert outcomes <= {201, 503, 504}  # a slow disk
    assert peak_mib(shop.command.pid) < SERVICE_MIB


def client_of(process: Process, number: int) -> httpx.AsyncClient:
    """One with an address of its own."""
    transport = httpx.AsyncHTTPTransport(local_address=f"127.0.0.{number}")
    return httpx.AsyncClient(base_url=process.url, timeout=60, transport=transport)


SLOW = 400


@pytest.fixture
async def slow_readers() -> AsyncIterator[list[socket.socket]]:
    """Connections that read nothing; closed at the end."""
    sockets: list[socket.socket] = []
    yield sockets
    for one in sockets:
        one.close()


@pytest.mark.promise("memory", "The query service stays below 400 MB, whatever clients do not read")
@pytest.mark.parametrize(
    "path",
    [
        "/orders/{number}",
        "/orders/{number}/history",
        "/orders/{number}/events?after=0",
        "/orders/{number}?known_at=2026-01-01T00:00:00Z",
    ],
)
@pytest.mark.bound("query", "page of a history or of the log; of a fold; of a statement")
@pytest.mark.bound("query", "page for an event stream; of the log's tail")
async def test_clients_that_do_not_read_do_not_fill_the_query_service(
    shop: Shop, connection: asyncpg.Connection[asyncpg.Record], slow_readers: list[socket.socket], path: str
) -> None:
    await record(connection, 40, changes=0)
    head = (await event_log.read_head(connection)).position
    await shop.start(shop.projector, shop.query)
    await eventually(lambda: is_at(shop, head), seconds=60)

    loop = asyncio.get_running_loop()
    for number in range(SLOW):
        one = socket.socket()
        slow_readers.append(one)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        one.bind((f"127.0.0.{number % 8 + 1}", 0))
        one.setblocking(False)
        await loop.sock_connect(one, (HOST, shop.query.port))
        request = f"GET {path.format(number=number % 40)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        await loop.sock_sendall(one, request * 3)

    async with client_of(shop.query, 20) as client:
        for number in range(20):
            answer = await client.get(f"/orders/{number}")
            assert answer.status_code == 200
    assert peak_mib(shop.query.pid) < SERVICE_MIB
