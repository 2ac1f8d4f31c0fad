"""What the command service takes with every row of the table of memory full at the same time (docs/operations.md)."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from shared.privacy.subject_key_cache import MAX_KEYS
from tests.command_service.test_operations import samples
from tests.faults.flood import flooding, head, send_each, with_body
from tests.faults.shop import Process, Shop
from tests.faults.test_memory import MIB, client_of, large_body, peak_mib
from tests.identity.issuer import AUDIENCE, ISSUER, Issuer, bearer
from tests.orders import order_body
from tests.running import eventually

CONNECTIONS = 4_000
LIMIT_BYTES = 400_000_000
TOKEN_BYTES = 5_000  # of each token that a process caches

pytestmark = pytest.mark.timeout(500)

ADDRESS = json.dumps({"shipping_address_id": "elsewhere"}).encode()


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "keys.json")


@pytest.fixture
async def rival(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A session that locks what it likes."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def identifying(issuer: Issuer) -> dict[str, Any]:
    """Settings of a service whose callers have tokens, without a limit of their requests."""
    return {
        "AUTH": "jwt",
        "AUTH_ISSUER": ISSUER,
        "AUTH_AUDIENCE": AUDIENCE,
        "AUTH_JWKS": str(issuer.file),
        "RATE_LIMIT": "1000000",
        "RATE_LIMIT_BURST": "1000000",
    }


async def fill_token_cache(process: Process, issuer: Issuer) -> None:
    """4 MiB of verified tokens."""
    tokens = [issuer.token("operator", subject=f"{number}", x="x" * TOKEN_BYTES) for number in range(900)]
    await send_each(process, [head("GET", "/metrics", token) for token in tokens])


@pytest.mark.promise("memory", "With everything full at once, the command service stays below 400 MB and goes on")
async def test_a_command_service_with_everything_full(
    shop: Shop, rival: asyncpg.Connection[asyncpg.Record], issuer: Issuer
) -> None:
    settings: dict[str, Any] = {
        "ADMISSION_DELAY_SECONDS": "1",
        "APPEND_TIMEOUT_SECONDS": "120",
        "APPEND_WAIT_SECONDS": "120",
        "SNAPSHOT_KEY": "the key of this test",
        "SNAPSHOT_COMMAND_EVENTS": "1",
        "SNAPSHOT_EVERY_EVENTS": "1",
        "COMPACT_INTERVAL_SECONDS": "0.5",
    }
    command = shop.process("command", **identifying(issuer), **settings)
    await shop.start(command)
    token = issuer.token("staff", "operator", valid_seconds=3_600)
    small = [json.dumps(order_body(customer_id=f"{number}", note="n")).encode() for number in range(MAX_KEYS)]
    await send_each(command, [with_body("POST", "/orders", token, body) for body in small])
    await fill_token_cache(command, issuer)
    large = with_body("POST", "/orders", token, large_body())
    await send_each(command, [large] * 20, connections=1, ahead=1)  # states, more than are cached
    with flooding(command) as flood:
        async with client_of(command, 2) as other:
            other.headers = bearer(token)
            for order_id in ("one", "two"):
                assert (await other.post("/orders", json=order_body(order_id=order_id))).status_code == 201
            await rival.execute("begin; lock table snapshots in access exclusive mode; savepoint appends")
            await rival.execute("select from log_head for update")

            await flood.send(400, head("GET", "/openapi.json", token))
            for order_id in ("one", "two"):  # the second of the clients' commands wait for the first
                await flood.send(400, with_body("PUT", f"/orders/{order_id}/shipping-address", token, ADDRESS))
            await flood.send(70, large)
            await eventually(lambda: says(other, 'orders_commands_total{command="PlaceOrder",outcome="overloaded"}'))
            await flood.fill(CONNECTIONS)
            await eventually(lambda: says(other, 'orders_http_connections_refused_total{limit="all"}'))
            await rival.execute("rollback to appends")
            assert (await other.get("/livez")).status_code == 200
            await eventually(lambda: is_placed(other), seconds=60)  # the queue is full for a moment still
            await rival.execute("rollback")
        peak = peak_mib(command.pid)
    sys.stdout.write(f"command service: {peak:.0f} MiB\n")
    assert peak * MIB < LIMIT_BYTES


async def is_placed(client: httpx.AsyncClient) -> bool:
    return (await client.post("/orders", json=order_body())).status_code == 201


async def says(client: httpx.AsyncClient, metric: str) -> bool:
    """Whether the metric is not 0."""
    return samples((await client.get("/metrics")).text).get(metric, 0.0) > 0.0
