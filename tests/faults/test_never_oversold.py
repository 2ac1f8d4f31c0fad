"""Orders that race for fewer pieces than they ask for, through three command processes of which two are killed."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from shared.aggregates import aggregate_of
from shared.aggregates.order import ORDER, Order, OrderStatus
from shared.aggregates.stock import STOCK
from shared.eventstore import codec
from shared.eventstore import log as event_log
from tests.faults.shop import Process, Shop
from tests.running import eventually
from tests.stocks import NOW, Books

CLIENTS = 50
ANSWERS = 300  # after the last kill
MINUTES = "0.03"  # that a reservation lasts
PRODUCTS = [f"product-{number}" for number in range(4)]
PIECES = 12  # of each; 50 clients ask for more at once
_AGAIN = {"version-conflict", "overloaded", "log-unavailable", "outcome-unknown"}


class Clients:
    """They place orders and go on with some of them, each request at any process, again until it is answered."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = processes
        self._client = httpx.AsyncClient(timeout=10, limits=httpx.Limits(max_connections=CLIENTS))
        self.outcomes: Counter[str] = Counter()
        self.stopped = asyncio.Event()

    async def race(self) -> None:
        """Until `stopped` is set."""
        async with self._client, asyncio.TaskGroup() as clients:
            for seed in range(CLIENTS):
                clients.create_task(self._shop(random.Random(seed)))

    async def send(self, draw: random.Random, method: str, path: str, body: Any) -> str:
        """The code of the answer: `ok` where the command was carried out."""
        headers = {"Idempotency-Key": str(uuid4())}
        while True:
            with suppress(httpx.TransportError):  # the process was killed
                url = draw.choice(self._processes).url
                answer = await self._client.request(method, url + path, json=body, headers=headers)
                code = "ok" if answer.is_success else answer.json()["code"]
                if code not in _AGAIN:
                    self.outcomes[f"{path.rpartition('/')[2]} {code}"] += 1
                    return str(code)
            await asyncio.sleep(0)

    async def _shop(self, draw: random.Random) -> None:
        while not self.stopped.is_set():
            order_id = f"order-{draw.getrandbits(64):x}"
            ordered = {product_id: draw.randint(1, 3) for product_id in draw.sample(PRODUCTS, draw.randint(1, 3))}
            items = [{"product_id": name, "quantity": count, "unit_price": 100} for name, count in ordered.items()]
            body = {"order_id": order_id, "customer_id": "a", "currency": "GBP", "items": items}
            placed = await self.send(draw, "POST", "/orders", {**body, "shipping_address_id": "home"})
            if placed == "ok":
                await self._go_on(draw, f"/orders/{order_id}", ordered)

    async def _go_on(self, draw: random.Random, order: str, ordered: Mapping[str, int]) -> None:
        """Most orders are cancelled, and what is shipped is received anew, so that pieces are raced for again."""
        what = draw.choice(["cancel", "cancel", "change", "ship", "leave"])
        if what == "ship":
            paid = {"payment_reference": order[8:], "amount": 100 * sum(ordered.values())}
            await self.send(draw, "POST", f"{order}/payment", paid)
            if await self.send(draw, "POST", f"{order}/shipment", {"tracking_number": "t-1"}) == "ok":
                await self._send_back(draw, order)
                for product_id, quantity in ordered.items():
                    await self.send(draw, "POST", f"/products/{product_id}/stock/receipts", {"quantity": quantity})
        if what == "change":
            await self.send(draw, "PUT", f"{order}/lines/1", {"quantity": draw.randint(1, 4)})
        if what in ("change", "cancel"):
            await self.send(draw, "POST", f"{order}/cancellation", {"reason": "changed my mind"})

    async def _send_back(self, draw: random.Random, order: str) -> None:
        pieces = {"line_id": "1", "quantity": 1}
        requested = {"return_id": "r-1", "lines": [pieces], "reason": "broken"}
        await self.send(draw, "POST", f"{order}/returns", requested)
        await self.send(draw, "POST", f"{order}/returns/r-1/receipt", {"lines": [{**pieces, "restock": True}]})


@pytest.mark.promise("orders", "Orders that race across processes, some killed, sell and reserve no piece twice")
@pytest.mark.timeout(90)
async def test_orders_that_race_for_too_few_pieces_oversell_nothing_through_kill_9(shop: Shop) -> None:
    killed = [
        shop.process("command", FAILPOINTS=f"{moment}=25*off->kill", RESERVATION_MINUTES=MINUTES)
        for moment in ("append.sending", "append.committed")
    ]
    lasting = shop.process("command", RESERVATION_MINUTES=MINUTES)
    await shop.start(*killed, lasting)
    clients = Clients([*killed, lasting])
    async with httpx.AsyncClient(base_url=lasting.url) as staff:
        for product_id in PRODUCTS:
            answer = await staff.post(f"/products/{product_id}/stock/receipts", json={"quantity": PIECES})
            assert answer.is_success, answer.text
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(clients.race())
        await asyncio.gather(*[_start_again_when_killed(shop, process) for process in killed])
        before = clients.outcomes.total()
        await eventually(lambda: clients.outcomes.total() >= before + ANSWERS, seconds=30)
        clients.stopped.set()
    log = await _log_of(shop)
    events = Counter(type(event).__name__ for _, event in log)
    assert clients.outcomes["orders insufficient-stock"] > 10, clients.outcomes
    assert min(events[f"Stock{what}"] for what in ("Reserved", "Released", "Shipped", "Returned")) > 5, events
    assert events["StockReservationExpired"], events
    _assert_nothing_is_oversold(log)


async def _start_again_when_killed(shop: Shop, process: Process) -> None:
    assert await process.until_it_ends() == -signal.SIGKILL
    again = shop.process("command", COMMAND_PORT=str(process.port), RESERVATION_MINUTES=MINUTES)
    again.port = process.port
    await shop.start(again)


async def _log_of(shop: Shop) -> list[tuple[str, Any]]:
    connection = await asyncpg.connect(shop.servers.database_url)
    log = [(stored.stream_id, codec.decode(*stored[4:7])) async for stored in event_log.read_all(connection)]
    await connection.close()
    return log


def _assert_nothing_is_oversold(log: Sequence[tuple[str, Any]]) -> None:
    """At every position; and in the end each order has reserved what its state says."""
    books, states = Books(), dict[str, Any]()
    for stream, event in log:
        if (product_id := STOCK.id_of(stream)) is not None:
            books.add(product_id, event)
        elif ORDER.id_of(stream) is not None:
            states[stream] = aggregate_of(stream).after(states.get(stream), event, NOW)
    orders: dict[str, Order] = {str(ORDER.id_of(stream)): state for stream, state in states.items()}
    for order_id, order in orders.items():
        held = books.held[order_id]
        assert held == order.reserved()
        assert not (held and order.status in (OrderStatus.CANCELLED, OrderStatus.SHIPPED))
    assert books.held.keys() == orders.keys()
