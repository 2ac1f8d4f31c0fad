"""Customers that keep ordering during all faults, and keep every acknowledgement."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any
from uuid import uuid4

import httpx

from tests.orders import TOTAL, order_body

# An answer that leaves open what happened, or says that nothing did: ask again with the same key.
_ASK_AGAIN = {503, 504}


class Customers:
    """`acknowledged` holds every acknowledgement; `refusals` every definite no."""

    def __init__(self, command_url: str, *, seed: int = 1) -> None:
        self.acknowledged: list[dict[str, Any]] = []
        self.refusals: list[httpx.Response] = []
        self.asked_again = 0
        self._random = random.Random(seed)
        self._client = httpx.AsyncClient(base_url=command_url, timeout=5.0)
        self._closing = False

    @asynccontextmanager
    async def ordering(self, count: int = 8) -> AsyncIterator[Customers]:
        """`count` customers order for as long as the block runs; each finishes what it began."""
        async with self._client, asyncio.TaskGroup() as shop:
            for _ in range(count):
                shop.create_task(self._keep_ordering())
            try:
                yield self
            finally:
                self._closing = True

    async def _keep_ordering(self) -> None:
        while not self._closing:
            placed = await self._send("POST", "/orders", order_body(customer_id=f"c{self._random.randrange(5)}"))
            order_id = placed["aggregate_id"]
            path = f"/orders/{order_id}"
            if self._random.random() < 0.5:
                await self._send("POST", f"{path}/payment", {"payment_reference": f"pay-{order_id}", "amount": TOTAL})
                await self._send("POST", f"{path}/shipment", {"tracking_number": "track"})
            elif self._random.random() < 0.5:
                await self._send("POST", f"{path}/cancellation", {"reason": "changed my mind"})

    async def _send(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        key = str(uuid4())
        give_up = monotonic() + 40
        while True:
            assert monotonic() < give_up, f"no definite answer to {method} {path}"
            try:
                answer = await self._client.request(method, path, json=body, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code not in _ASK_AGAIN:
                break
            self.asked_again += 1
            await asyncio.sleep(0.05)
        if answer.is_success:
            self.acknowledged.append(answer.json())
        else:
            self.refusals.append(answer)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        acknowledgement: dict[str, Any] = answer.json()
        return acknowledgement
