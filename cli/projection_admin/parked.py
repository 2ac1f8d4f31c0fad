"""`orders projections retry`: asks the projector to try again what it could not apply, and says what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from cli.projection_admin.admin import Desk, Failed, work
from projector.stores import EVERYTHING, Moved, Store
from query_service.postgresql_store import postgresql_status
from query_service.redis_store import redis_status
from shared.read_models.poison import Poison

_LOOK_SECONDS = 0.05


def retry(name: str, document_id: str | None, wait: float, data_dir: Path) -> None:
    """Print what became of each. Raises Failed where one stays parked, or the projection stays stopped."""
    work(name, data_dir, partial(_retry, document_id, wait))


async def _retry(document_id: str | None, wait: float, desk: Desk) -> None:
    stores = await desk.live_stores()
    parked = await _parked(stores)
    if document_id is not None:
        if document_id not in parked:
            raise Failed(f"{document_id} is not parked")
        parked = {document_id: parked[document_id]}
        stores = [store for store in stores if document_id in await _parked([store])]
    elif not parked and await _stopped_at(desk) is None:
        desk.console.print("nothing is parked, and no event has stopped it")
        return
    for store in stores:
        await store.ask_retry(document_id or EVERYTHING)
    await _until_tried(stores, document_id or EVERYTHING, wait)
    failed = await _tell(desk, parked, await _parked(stores))
    if document_id is None and (stopped := await _stopped_at(desk)) is not None:
        failed.append(f"still stopped before {stopped}")
    if failed:
        raise Failed("\n".join(failed))
    if document_id is None:
        desk.console.print(f"{desk.projection.name} goes on")


async def _parked(stores: Sequence[Store]) -> dict[str, Poison]:
    return {poison.document_id: poison for store in stores for poison in await _parked_in(store)}


async def _parked_in(store: Store) -> list[Poison]:
    while (checkpoint := await store.checkpoint()) is not None:
        with suppress(Moved):  # by the projector, just now
            return await store.parked(checkpoint)
    return []


async def _stopped_at(desk: Desk) -> Poison | None:
    name = desk.projection.name
    if desk.kept_in == "redis":
        found = await redis_status(desk.redis, name)
    else:
        found = await postgresql_status(desk.database, name)
    return None if found.heartbeat is None else found.heartbeat.poison


async def _until_tried(stores: Sequence[Store], asked: str, wait: float) -> None:
    try:
        async with asyncio.timeout(wait):
            for store in stores:
                await _until_answered(store, asked)
    except TimeoutError:
        raise Failed(f"no projector has tried it within {wait:.0f} s; the next one that runs does") from None


async def _until_answered(store: Store, asked: str) -> None:
    while True:
        if asked not in await store.retries():
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def _tell(desk: Desk, before: dict[str, Poison], after: dict[str, Poison]) -> list[str]:
    """Those that were parked and still are; prints the others."""
    for document_id in before.keys() - after.keys():
        desk.console.print(f"{document_id} is up to date again")
    still = [after[document_id] for document_id in before if document_id in after]
    return [f"{poison.document_id} is still parked before {poison}" for poison in still]
