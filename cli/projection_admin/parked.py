"""Retrying parked events: asks the projector to apply them again, and prints the outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from cli.failure import CommandFailed
from cli.projection_admin.admin import ProjectionAdmin
from projector.stores.store import EVERYTHING, CheckpointMismatch, Store
from query_service.postgresql_store import postgresql_status
from query_service.redis_store import redis_status
from shared.read_models.poison import Poison

_POLL_SECONDS = 0.05


async def retry_parked(admin: ProjectionAdmin, document_id: str | None, seconds: float) -> None:
    """Retry the document, or everything that is parked. Waits at most `seconds` for a projector.

    Prints each outcome. Raises CommandFailed where a document stays parked or the projection stays stopped.
    """
    stores = await admin.live_stores()
    parked = await _parked(stores)
    if document_id is not None:
        if document_id not in parked:
            raise CommandFailed(f"{document_id} is not parked")
        parked = {document_id: parked[document_id]}
        stores = [store for store in stores if document_id in await _parked([store])]
    elif not parked and await _stopped_at(admin) is None:
        admin.console.print("nothing is parked, and no event has stopped it")
        return
    for store in stores:
        await store.ask_retry(document_id or EVERYTHING)
    await _await_retries(stores, document_id or EVERYTHING, seconds)
    failed = _print_outcomes(admin, parked, await _parked(stores))
    if document_id is None and (stopped := await _stopped_at(admin)) is not None:
        failed.append(f"still stopped before {stopped}")
    if failed:
        raise CommandFailed("\n".join(failed))
    if document_id is None:
        admin.console.print(f"{admin.projection.name} continues")


async def _parked(stores: Sequence[Store]) -> dict[str, Poison]:
    return {poison.document_id: poison for store in stores for poison in await _parked_in(store)}


async def _parked_in(store: Store) -> list[Poison]:
    while (checkpoint := await store.checkpoint()) is not None:
        with suppress(CheckpointMismatch):  # the projector has just written another checkpoint
            return await store.parked(checkpoint)
    return []


async def _stopped_at(admin: ProjectionAdmin) -> Poison | None:
    name = admin.projection.name
    if admin.store == "redis":
        found = await redis_status(admin.redis, name)
    else:
        found = await postgresql_status(admin.database, name)
    return None if found.heartbeat is None else found.heartbeat.poison


async def _await_retries(stores: Sequence[Store], document_id: str, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            for store in stores:
                await _await_retry(store, document_id)
    except TimeoutError:
        raise CommandFailed(f"no projector has tried it within {seconds:.0f} s; the next one that runs does") from None


async def _await_retry(store: Store, document_id: str) -> None:
    while True:
        if document_id not in await store.retries():
            return
        await asyncio.sleep(_POLL_SECONDS)


def _print_outcomes(admin: ProjectionAdmin, before: dict[str, Poison], after: dict[str, Poison]) -> list[str]:
    """Prints the documents that are no longer parked; returns a line for each that still is."""
    for document_id in before.keys() - after.keys():
        admin.console.print(f"{document_id} is up to date again")
    still = [after[document_id] for document_id in before if document_id in after]
    return [f"{poison.document_id} is still parked before {poison}" for poison in still]
