"""A projector of which one projection raises on the events that a test says."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Self

import httpx
import pytest

from projector.projection import RecordedEvent
from projector.projections import PROJECTIONS
from projector.stores.factory import open_generation_store
from projector.stores.store import EVERYTHING, Store
from shared.eventstore.log import read_head
from shared.postgres import create_pool
from shared.redis import create_redis
from shared.settings import OnPoison, Settings
from tests.orders import paid, placed, shipped
from tests.recording import Recorder
from tests.roles import settings_of
from tests.running import eventually, is_ready, running_projector, running_query_service


class SickStack:
    """A projector and a query service. `sick` are the positions of events that one projection raises on."""

    def __init__(self, settings: Settings, patch: pytest.MonkeyPatch, recorder: Recorder) -> None:
        self.sick: set[int] = set()
        self.error = "indigestible"
        self._settings = settings
        self._patch = patch
        self._recorder = recorder
        self._exit = AsyncExitStack()
        self.queries: httpx.AsyncClient
        self.projector: httpx.AsyncClient
        self.store: Store

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        await self._exit.aclose()

    async def start(self, name: str, on_poison: OnPoison) -> None:
        one = PROJECTIONS[name]
        healthy = one.projection.apply

        def apply(document_id: str, document: Any, recorded: RecordedEvent[Any]) -> Any:
            if recorded.position in self.sick:
                raise ValueError(self.error)
            return healthy(document_id, document, recorded)

        rigged = one._replace(projection=replace(one.projection, apply=apply))
        self._patch.setitem(PROJECTIONS, name, rigged)
        running = running_projector(self._settings, projector_on_poison=on_poison)
        self.projector = await self._exit.enter_async_context(running)
        self.queries = await self._exit.enter_async_context(running_query_service(self._settings))
        projector = settings_of(self._settings, "orders_projector")
        redis = await self._exit.enter_async_context(create_redis(projector))
        pool = await self._exit.enter_async_context(await create_pool(projector, "test"))
        self.store = open_generation_store(one, redis, pool).store(1)
        await eventually(self.ready)

    async def ready(self) -> bool:
        return await is_ready(self.projector) and await is_ready(self.queries)

    async def status(self, name: str) -> dict[str, Any]:
        found = (await self.queries.get("/projections")).json()["projections"]
        return next(one for one in found if one["name"] == name)

    def at_the_head(self, *names: str) -> Callable[[], Awaitable[bool]]:
        async def reached() -> bool:
            head = (await read_head(self._recorder.connection)).position
            return all([(await self.status(name))["checkpoint"] == head for name in names])

        return reached

    async def metric(self, name: str, **labels: str) -> float:
        text = ",".join(f'{label}="{value}"' for label, value in labels.items())
        match = re.search(rf"^{name}{{{text}}} (\S+)$", (await self.projector.get("/metrics")).text, re.MULTILINE)
        return 0.0 if match is None else float(match[1])

    async def retry(self, asked: str = EVERYTHING) -> None:
        await self.store.ask_retry(asked)

        async def tried() -> bool:
            return asked not in await self.store.retries()

        await eventually(tried)


async def three_events_of_two_orders(recorder: Recorder, stack: SickStack) -> int:
    """`a` is placed, paid and shipped, but its payment is poison; `b` goes on meanwhile. The payment's position."""
    await recorder.record("a", placed())
    await recorder.record("b", placed())
    position = (await read_head(recorder.connection)).position + 1
    stack.sick.add(position)
    assert await recorder.record("a", paid()) == position
    await recorder.record("b", paid())
    await recorder.record("a", shipped())
    await recorder.record("b", shipped())
    return position
