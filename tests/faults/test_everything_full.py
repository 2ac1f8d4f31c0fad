"""What each process takes with every cache, queue and buffer of it full at the same time.

The bounds are in docs/operations.md; what others get meanwhile is checked as well.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis
from uuid_utils.compat import uuid7

from cli.stack.embedded_server import HOST
from shared.aggregates.order import ORDER
from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest
from tests.command_service.test_operations import samples
from tests.faults.shop import Process, Shop
from tests.faults.test_memory import (
    PROJECTOR_MIB,
    SERVICE_MIB,
    append,
    client_of,
    is_at,
    large_body,
    large_order,
    new,
    peak_mib,
    record,
)
from tests.orders import order_body
from tests.running import eventually

MIB = 2**20
CONNECTIONS = 3_800  # of the 4,000 that there may be
LARGE = 1_100  # of them, more than are taken
LARGE_HEAD = b"X-A: " + b"a" * 8_000 + b"\r\nX-B: " + b"b" * 7_900 + b"\r\n"
SMALL_HEAD = b"".join(b"X-%02d: %b\r\n" % (number, b"a" * 32) for number in range(97))
PARKED = 990

pytestmark = pytest.mark.timeout(500)


class Attack:
    """Connections that send what they are told and read nothing, from twelve addresses."""

    def __init__(self, process: Process) -> None:
        self._port = process.port
        self._open: list[socket.socket] = []

    async def send(self, data: bytes, connections: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            one = socket.socket()
            self._open.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            one.bind((f"127.0.0.{len(self._open) % 12 + 20}", 0))
            one.setblocking(False)
            with suppress(ConnectionError):  # it is the slowest of all
                await loop.sock_connect(one, (HOST, self._port))
                await loop.sock_sendall(one, data)

    async def fill_up(self) -> None:
        """Of the connections that are left, some hold heads and bodies as large as may be, until no more are taken; all
        others as much as does not count."""
        start = b"POST /orders HTTP/1.1\r\nHost: a\r\n"
        await self.send(start + LARGE_HEAD + b"Content-Length: 16000\r\n\r\n" + b"x" * 15_999, LARGE)
        small = start + SMALL_HEAD + b"Content-Length: 4000\r\n\r\n" + b"x" * 3_999
        await self.send(small, CONNECTIONS - len(self._open))

    def close(self) -> None:
        for one in self._open:
            one.close()


@pytest.fixture
def attack_on() -> Iterator[Callable[[Process], Attack]]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        yield lambda process: stack.enter_context(closing(Attack(process)))


@pytest.fixture
async def rival(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A session that locks what it likes."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


@pytest.mark.promise("memory", "With everything full at once, the command service stays below 400 MB and goes on")
async def test_a_command_service_with_everything_full(
    shop: Shop, rival: asyncpg.Connection[asyncpg.Record], attack_on: Callable[[Process], Attack]
) -> None:
    command = shop.process(
        "command",
        RATE_LIMIT="100000",
        APPEND_TIMEOUT_SECONDS="120",
        APPEND_WAIT_SECONDS="120",
        SNAPSHOT_KEY="of this test",
        SNAPSHOT_COMMAND_EVENTS="1",
        SNAPSHOT_EVERY_EVENTS="1",
        COMPACT_INTERVAL_SECONDS="0.5",
    )
    await shop.start(command)
    body = large_body()
    json_body = {"Content-Type": "application/json"}
    async with client_of(command, 2) as other:
        for _ in range(20):  # states, more than are cached
            assert (await other.post("/orders", content=body, headers=json_body)).status_code == 201
        await rival.execute("begin; lock table snapshots in access exclusive mode")
        for _ in range(20):  # snapshots, more than are saved at once
            assert (await other.post("/orders", content=body, headers=json_body)).status_code == 201
        await rival.execute("select from log_head for update")

        senders = [client_of(command, number) for number in range(3, 9)]
        placing = [asyncio.create_task(one.post("/orders", content=body, headers=json_body)) for one in senders * 14]
        waiting = [asyncio.create_task(other.post("/orders", json=order_body())) for _ in range(60)]

        async def is_queued() -> bool:
            found = samples((await other.get("/metrics")).text)
            return found["orders_append_queue_commands"] > 30

        await eventually(is_queued, seconds=60)
        attack = attack_on(command)
        await attack.send(get("/docs/swagger/swagger-ui-bundle.js") * 3, 60)
        await attack.send(get("/openapi.json") * 3, 300)
        await attack.fill_up()
        assert (await other.get("/livez")).status_code == 200
        full = peak_mib(command.pid)

        await rival.execute("rollback")
        outcomes = {answer.status_code for answer in await asyncio.gather(*placing, *waiting)}
        assert outcomes <= {201, 503}
        assert 201 in outcomes
        assert (await other.post("/orders", json=order_body())).status_code == 201
    for one in senders:
        await one.aclose()
    sys.stdout.write(f"command service: {full:.0f} MiB\n")
    assert peak_mib(command.pid) < SERVICE_MIB


@pytest.mark.promise("memory", "With everything full at once, the query service stays below 400 MB and goes on")
async def test_a_query_service_with_everything_full(
    shop: Shop, connection: asyncpg.Connection[asyncpg.Record], attack_on: Callable[[Process], Attack]
) -> None:
    orders = 40
    await record(connection, orders, changes=251)
    head = (await event_log.read_head(connection)).position
    shop.query = shop.process("query", RATE_LIMIT="100000")
    await shop.start(shop.projector, shop.query)
    await eventually(lambda: is_at(shop, head), seconds=120)
    attack = attack_on(shop.query)
    several = ",".join(str(number) for number in range(9))
    async with client_of(shop.query, 2) as other:
        for number in range(orders):  # cached documents, and states that time travel has folded
            assert (await other.get(f"/orders/{number}")).status_code == 200
            past = await other.get(f"/orders/{number}?known_at={datetime.now(UTC).isoformat()[:19]}Z")
            assert past.status_code == 200

        shop.projector.kill()
        await append(connection, [AppendRequest.of_stream(ORDER.stream_of("last"), 0, uuid7(), [new(large_order())])])
        token = (await event_log.read_head(connection)).token.encode()
        waits = f"Consistency-Token: {token}\r\nPrefer: wait=30\r\n\r\n".encode()
        await attack.send(get("/orders/1")[:-2] + waits, 600)
        for number in range(5):
            await attack.send(get(f"/orders/{number}/events?after=0"), 180)
        await attack.send(get("/events?after=0")[:-2] + b"Accept: text/event-stream\r\n\r\n", 90)
        for path in ("/orders/1/history", "/orders/2/history?after_version=1", "/events", f"/orders?ids={several}"):
            await attack.send(get(path) * 3, 120)
        await attack.send(get(f"/orders/3?known_at={datetime.now(UTC).isoformat()[:19]}Z") * 3, 120)
        await attack.send(get("/reports/revenue?from=2026-01-01&to=2026-12-31") * 3, 120)
        await attack.send(get("/orders/4") * 3, 300)
        await attack.fill_up()
        for number in range(20):
            assert (await other.get(f"/orders/{number}")).status_code == 200
    sys.stdout.write(f"query service: {peak_mib(shop.query.pid):.0f} MiB\n")
    assert peak_mib(shop.query.pid) < SERVICE_MIB


@pytest.mark.promise("memory", "With everything full at once, a projector stays below 512 MB")
async def test_a_projector_with_everything_full(shop: Shop, connection: asyncpg.Connection[asyncpg.Record]) -> None:
    unreadable = json.dumps({"customer_id": "x" * 9_000, "unknown": ["y" * 9_000]})
    poison = new(large_order())._replace(data=unreadable)
    for first in range(0, PARKED, 90):
        group = [
            AppendRequest.of_stream(
                ORDER.stream_of(f"poison-{number}"), 0, uuid7(), [poison._replace(event_id=uuid7())]
            )
            for number in range(first, first + 90)
        ]
        await append(connection, group)
    await record(connection, 200, changes=3)
    head = (await event_log.read_head(connection)).position
    shop.projector = shop.process("projector", PROJECTOR_ON_POISON="park", PROJECTOR_PARTITIONS="orders=1")
    await shop.start(shop.projector)
    await eventually(lambda: is_at(shop, head), seconds=200)
    async with Redis.from_url(shop.servers.redis_url) as redis:
        assert await redis.zcard("{orders.0}:parked") == PARKED
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{shop.projector.url}/livez")).status_code == 200
    sys.stdout.write(f"projector: {peak_mib(shop.projector.pid):.0f} MiB\n")
    assert peak_mib(shop.projector.pid) < PROJECTOR_MIB
