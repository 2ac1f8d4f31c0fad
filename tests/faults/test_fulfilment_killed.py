"""`kill -9` of the process runner at each step, and of each process while orders are fulfilled: every order ends
delivered or cancelled, and the provider's own ledger agrees with the log."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import asyncpg
import httpx
import msgspec
import pytest

from command_service.gateways.sandbox.ledger import Entry
from shared.aggregates.order import ORDER, Order, OrderStatus
from shared.eventstore.snapshots import Snapshots
from shared.eventstore.store import PostgresEventStore
from tests.faults.shop import Process, Servers, Shop
from tests.running import eventually

KINDS = {"orchestrated": ["fulfilment"], "choreographed": ["order_payment", "order_shipping"]}
PRICE = 10_000


class Expected(NamedTuple):
    """Of an order of some pieces, whose total may have an end with a meaning (docs/processes.md)."""

    pieces: int
    ends_in: int
    status: OrderStatus
    is_paid: bool


ORDERS = {
    "plain": Expected(2, 0, OrderStatus.DELIVERED, True),
    "declined": Expected(1, 9001, OrderStatus.CANCELLED, False),
    "capture declined": Expected(1, 9002, OrderStatus.CANCELLED, False),
    "payment fails after": Expected(1, 9005, OrderStatus.DELIVERED, True),
    "payment does not answer": Expected(1, 9006, OrderStatus.DELIVERED, True),
    "payment fails before": Expected(1, 9008, OrderStatus.DELIVERED, True),
    "lost": Expected(903, 0, OrderStatus.DELIVERED, False),
    "lost once": Expected(910, 0, OrderStatus.DELIVERED, True),
    "carrier fails after": Expected(905, 0, OrderStatus.DELIVERED, True),
    "carrier does not answer": Expected(906, 0, OrderStatus.DELIVERED, True),
    "carrier delays": Expected(904, 0, OrderStatus.DELIVERED, True),
}
STEPS = [
    "process.advancing:SubjectChanged=3*off->kill",
    "process.advanced:SubjectChanged=3*off->kill",
    "effect.carried_out:Authorise=2*off->kill",
    "effect.carried_out:Capture=1*off->kill",
    "effect.carried_out:BookParcel=2*off->kill",
    "effect.carried_out:HandOver=kill",
    "effect.carried_out:Refund=kill",
    "process.advancing:Answer=9*off->kill",
    "process.advanced:Answer=12*off->kill",
]


class Fulfilment:
    """A shop with a sandbox and a process runner."""

    def __init__(self, shop: Shop, directory: Path, form: str) -> None:
        self.shop = shop
        self.kinds = KINDS[form]
        self.sandbox = shop.process("sandbox", SANDBOX_LEDGER=str(directory / "ledger.sqlite"))
        self._settings = {
            "FULFILMENT": form,
            "PAYMENT_GATEWAY_URL": f"{self.sandbox.url}/payment",
            "CARRIER_GATEWAY_URL": f"{self.sandbox.url}/carrier",
            "GATEWAY_TIMEOUT_SECONDS": "0.5",
            "GATEWAY_PAUSE_SECONDS": "0.2",
        }

    def runner(self, failpoints: str = "") -> Process:
        return self.shop.process("processes", None, None, FAILPOINTS=failpoints, **self._settings)

    async def place(self, *numbers: int) -> None:
        """The orders of the table, for each number."""
        async with httpx.AsyncClient(base_url=self.shop.command.url, timeout=30) as client:
            answers = await asyncio.gather(
                *(client.post("/orders", json=_body(f"{name} {number}")) for name in ORDERS for number in numbers)
            )
        assert {answer.status_code for answer in answers} == {201}

    async def ledger(self, service: str) -> list[Entry]:
        async with httpx.AsyncClient(base_url=self.sandbox.url) as client:
            return msgspec.json.decode((await client.get(f"/{service}/ledger")).content, type=list[Entry])


def _body(name: str) -> dict[str, object]:
    expected = ORDERS[name.rpartition(" ")[0]]
    lines = [{"product_id": "MUG", "quantity": expected.pieces, "unit_price": PRICE}]
    charges = [{"kind": "shipping", "amount": expected.ends_in}] if expected.ends_in else []
    return {
        "order_id": name.replace(" ", "-"),
        "customer_id": "ann",
        "currency": "GBP",
        "items": lines,
        "charges": charges,
        "shipping_address_id": "home",
    }


@asynccontextmanager
async def reading(servers: Servers) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    async with asyncpg.create_pool(servers.database_url, min_size=1, max_size=2) as pool:
        yield pool


async def _count(pool: asyncpg.Pool[asyncpg.Record], event_type: str) -> int:
    return int(await pool.fetchval("select count(*) from events where event_type = $1", event_type))


async def _all_end(pool: asyncpg.Pool[asyncpg.Record], count: int) -> None:
    async def ended() -> bool:
        return await _count(pool, "ProcessEnded") == count

    await eventually(ended, seconds=60)


async def _assert_all_is_well(fulfilment: Fulfilment, pool: asyncpg.Pool[asyncpg.Record], *numbers: int) -> None:
    await _all_end(pool, len(ORDERS) * len(numbers) * len(fulfilment.kinds))
    kept: Counter[str] = Counter()
    ledgers = [entry for service in ("payment", "carrier") for entry in await fulfilment.ledger(service)]
    for entry in ledgers:
        if entry.outcome in ("Captured", "Refunded"):
            order_id = entry.effect_id.rpartition("-")[0].partition("-")[2]
            kept[order_id] += entry.data["amount"] * (1 if entry.outcome == "Captured" else -1)
    snapshots = Snapshots(PostgresEventStore(pool), None)
    for name, expected in ORDERS.items():
        for number in numbers:
            order_id = f"{name} {number}".replace(" ", "-")
            order: Order = (await snapshots.load(ORDER, ORDER.stream_of(order_id))).state
            total = expected.pieces * PRICE + expected.ends_in if expected.is_paid else 0
            # What is refunded of a lost parcel are its pieces, not the shipping charge, which is 0 there.
            assert (order_id, order.status, kept[order_id]) == (order_id, expected.status, total)
            assert (order.paid, order.authorised, order.refund_due) == (total, 0, 0), order_id
    await _assert_effects_took_place_once(pool, ledgers)


async def _assert_effects_took_place_once(pool: asyncpg.Pool[asyncpg.Record], ledgers: list[Entry]) -> None:
    """The provider did what was asked for, each once, and the log has what came of it."""
    answered = await pool.fetch(
        "select data->>'effect_id', data->>'outcome' from (select data::jsonb from events"
        " where event_type = 'EffectAnswered') answers"
    )
    assert sorted(map(tuple, answered)) == sorted((entry.effect_id, entry.outcome) for entry in ledgers)
    assert await _count(pool, "ProcessStuck") == 0


@pytest.mark.promise("processes", "A runner that is killed at any step loses no order, and repeats no effect")
@pytest.mark.parametrize("step", STEPS)
async def test_a_runner_that_is_killed_at_a_step_goes_on(
    step: str, shop: Shop, servers: Servers, tmp_path: Path
) -> None:
    fulfilment = Fulfilment(shop, tmp_path, "orchestrated")
    killed = fulfilment.runner(step)
    await shop.start(shop.command, fulfilment.sandbox, killed)
    await fulfilment.place(1)
    assert await killed.until_it_ends() == -9

    await shop.start(fulfilment.runner())
    async with reading(servers) as pool:
        await _assert_all_is_well(fulfilment, pool, 1)


@pytest.mark.promise("processes", "Orders are fulfilled rightly while any of the processes is killed")
@pytest.mark.parametrize("form", KINDS)
@pytest.mark.parametrize("victim", ["command", "processes", "sandbox"])
async def test_a_process_that_is_killed_while_orders_are_fulfilled(
    victim: str, form: str, shop: Shop, servers: Servers, tmp_path: Path
) -> None:
    fulfilment = Fulfilment(shop, tmp_path, form)
    runner = fulfilment.runner()
    victims = {"command": shop.command, "processes": runner, "sandbox": fulfilment.sandbox}
    await shop.start(shop.command, fulfilment.sandbox, runner)
    async with reading(servers) as pool:
        await fulfilment.place(1, 2)

        async def is_under_way() -> bool:
            return await _count(pool, "EffectAnswered") > 20

        await eventually(is_under_way, seconds=30)
        victims[victim].kill()
        await shop.start(victims[victim])
        await fulfilment.place(3)

        await _assert_all_is_well(fulfilment, pool, 1, 2, 3)
