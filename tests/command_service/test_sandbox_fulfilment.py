"""Orders fulfilled with the sandbox over HTTP: the process runner, a command service that takes callbacks, and each
magic amount."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import asyncpg
import httpx
import pytest

from command_service.gateways.sandbox.behaviour import AMOUNTS, PIECES
from command_service.processes import app as process_app
from command_service.processes import dispatcher
from command_service.processes.fulfilment import reactions
from command_service.processes.fulfilment.state import Timer
from shared.aggregates.process import PROCESS, Process
from shared.eventstore.snapshots import Snapshots
from shared.eventstore.store import PostgresEventStore
from shared.settings import Settings
from tests.command_service.sandboxes import CARRIER_SECRET, SECRET, Sandbox, running_sandbox
from tests.orders import order_body
from tests.roles import settings_of
from tests.running import eventually, running_command_service, settings_for

SECRETS = {"payment_gateway_secret": SECRET, "carrier_gateway_secret": CARRIER_SECRET}
SOON, LATER = timedelta(milliseconds=50), timedelta(hours=1)
# By the end of the amount, or by pieces: how the process ends, and whether the order is paid then.
ENDS = {
    **dict.fromkeys([*AMOUNTS, *PIECES], ("delivered", True)),
    **dict.fromkeys((9001, 9002, 901), ("cancelled", False)),
    903: ("delivered", False),  # without its pieces: they were refunded
}


class Shop(NamedTuple):
    client: httpx.AsyncClient
    pool: asyncpg.Pool[asyncpg.Record]
    sandbox: Sandbox
    ledger: Path

    async def place(self, magic: int) -> None:
        """The order `order-<magic>`."""
        line = {"quantity": magic, "unit_price": 10} if magic in PIECES else {"quantity": 1, "unit_price": magic}
        body = order_body(order_id=f"order-{magic}", items=[{"product_id": "MUG", **line}])
        (await self.client.post("/orders", json=body)).raise_for_status()

    async def process(self, magic: int) -> Process | None:
        snapshots = Snapshots(PostgresEventStore(self.pool), None)
        loaded = await snapshots.load(PROCESS, PROCESS.stream_of(f"fulfilment-order-{magic}"))
        process: Process | None = loaded.state
        return process

    async def ends(self, magic: int) -> str:
        """How it does."""

        async def has_ended() -> bool:
            process = await self.process(magic)
            return process is not None and process.outcome is not None

        await eventually(has_ended, seconds=40)
        process = await self.process(magic)
        assert process is not None
        return str(process.outcome)

    async def kept(self, magic: int) -> int:
        """What the payment service has of the order's money."""
        kept = {"Captured": 1, "Refunded": -1}
        entries = await self.sandbox.ledger("payment", f"fulfilment-order-{magic}")
        return sum([kept.get(entry.outcome, 0) * entry.data.get("amount", 0) for entry in entries])

    def callbacks(self) -> int:
        """That the command service has not taken."""
        connection = sqlite3.connect(self.ledger)
        (count,) = connection.execute("select count(*) from callbacks").fetchone()
        connection.close()
        return int(count)


@contextmanager
def retrying(*, first_seconds: float) -> Iterator[None]:
    after = dict.fromkeys(reactions.AFTER, LATER) | dict.fromkeys((Timer.TRACK, Timer.RESTOCK), SOON)
    with patch.object(reactions, "AFTER", after), patch.object(dispatcher, "FIRST_RETRY_SECONDS", first_seconds):
        yield


@pytest.fixture
async def shop(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    settings = settings_for(database_url, redis_url, **SECRETS)
    callbacks = f"http://127.0.0.1:{settings.command_port}/gateways"
    ledger = tmp_path / "ledger.db"
    async with (
        running_command_service(settings) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
        asyncpg.create_pool(database_url, min_size=1, max_size=4) as pool,
        running_sandbox(sandbox_ledger=str(ledger), sandbox_callback_url=callbacks, **SECRETS) as sandbox,
        running_processes(settings, sandbox),
    ):
        yield Shop(client, pool, sandbox, ledger)


@asynccontextmanager
async def running_processes(settings: Settings, sandbox: Sandbox) -> AsyncIterator[None]:
    changed = settings_of(settings, "orders_command").model_copy(update={"fulfilment": "orchestrated"})
    async with process_app.running(changed, sandbox.gateways):
        yield


@pytest.mark.promise("processes", "With each magic amount of the sandbox, an order ends right and once paid at most")
async def test_orders_with_each_magic_amount_end_right(shop: Shop) -> None:
    with retrying(first_seconds=0.02):
        await asyncio.gather(*map(shop.place, ENDS))
        await eventually(lambda: is_held(shop, 9003), seconds=40)
        (await shop.client.delete("/orders/order-9003/hold")).raise_for_status()
        ends = {magic: (await shop.ends(magic), await shop.kept(magic) > 0) for magic in ENDS}
    assert ends == ENDS
    for magic, (_, is_paid) in ENDS.items():
        total = magic * 10 if magic in PIECES else magic
        assert await shop.kept(magic) == (total if is_paid else 0)
    await eventually(lambda: shop.callbacks() == 0)


async def is_held(shop: Shop, magic: int) -> bool:
    query = "select exists (select from events where stream_id = $1 and event_type = 'OrderHeld')"
    return bool(await shop.pool.fetchval(query, f"order-order-{magic}"))


@pytest.mark.parametrize("magic", [9004, 904])
async def test_a_callback_brings_an_outcome_that_is_not_asked_for(shop: Shop, magic: int) -> None:
    """The effects are delayed, and asked for after an hour."""
    with retrying(first_seconds=3_600):
        await shop.place(magic)
        assert await shop.ends(magic) == "delivered"


async def test_a_callback_is_sent_until_it_is_taken(database_url: str, redis_url: str, tmp_path: Path) -> None:
    settings: Any = settings_for(database_url, redis_url, **SECRETS)
    callbacks = f"http://127.0.0.1:{settings.command_port}/gateways"
    ledger = tmp_path / "ledger.db"
    async with (
        running_sandbox(sandbox_ledger=str(ledger), sandbox_callback_url=callbacks, **SECRETS) as sandbox,
        asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool,
    ):
        shop = Shop(httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.command_port}"), pool, sandbox, ledger)
        with retrying(first_seconds=3_600):
            async with running_processes(settings, sandbox):
                async with running_command_service(settings):
                    await shop.place(9004)
                    await eventually(lambda: is_requested(sandbox))
                await eventually(lambda: shop.callbacks() == 1)  # the service is away: not taken
                async with running_command_service(settings):
                    assert await shop.ends(9004) == "delivered"
        await shop.client.aclose()


async def is_requested(sandbox: Sandbox) -> bool:
    answer = await sandbox.client.get("/payment/effects/fulfilment-order-9004-1")
    return answer.status_code == 202
