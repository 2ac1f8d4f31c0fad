"""The command service, composed: the only place that builds connections and wires them together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial

import asyncpg
from fastapi import FastAPI

from command_service import reservation_expiry
from command_service.admission import Limit, watch
from command_service.api import ROUTERS
from command_service.catalogue import CONNECTIONS, Catalogue
from command_service.compactor import compact_for_ever
from command_service.gateways.registry import KINDS
from command_service.group_commit import GroupCommit
from command_service.handler import Handler
from command_service.throttle import Throttle
from shared.aio import cancel
from shared.eventstore import idempotency_keys
from shared.eventstore import log as event_log
from shared.eventstore.blockers import SlowCallMonitor
from shared.eventstore.log import Connection
from shared.eventstore.snapshots import SnapshotPolicy, Snapshots
from shared.eventstore.store import EventStore, PostgresAppendSession, PostgresEventStore
from shared.http.application import add_routes, create_api
from shared.http.operations import NotReady
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST, connect, create_pool
from shared.privacy.key_encryption import KeyEncryption
from shared.privacy.subject_key_cache import cached
from shared.privacy.subject_keys import NO_SECRET, SubjectKeys
from shared.read_models.progress import read_behind
from shared.settings import Settings

_log = get_logger()

_DESCRIPTION = """\
Commands on orders. A command is **acknowledged** (it is durable) or **refused**; it never returns order data.

The acknowledgement carries a `consistency_token`. Send it as `Consistency-Token` to the query service and the answer
includes your write. Send an `Idempotency-Key` with every command and a repeated request is carried out once.
"""


def create_app(settings: Settings) -> FastAPI:
    app = create_api(
        title="Orders: commands",
        description=_DESCRIPTION,
        settings=settings,
        lifespan=_lifespan(settings, KeyEncryption.of(settings)),
        ready=lambda: _ready(app),
        tags=[{"name": tag, "description": description} for tag, (_, description) in ROUTERS.items()],
    )
    add_routes(app, settings, *(router for router, _ in ROUTERS.values()))
    app.state.query_url = settings.query_url or settings.root_path
    app.state.hint_for_reads = f" Reads are for the query service{settings.query_url and f', {settings.query_url}'}."
    app.state.refuses_unknown_customers = settings.unknown_customers == "refuse"
    app.state.signatures = {name: kind.signatures(settings) for name, kind in KINDS.items()}
    app.state.refuses_unknown_products = settings.unknown_products == "refuse"
    app.state.limit = Limit(settings.admission_delay_seconds, settings.append_queue_size)
    return app


def create_group_commit(settings: Settings) -> tuple[SlowCallMonitor, GroupCommit]:
    """A group commit, to be started and stopped, and its monitor, to be closed after it."""

    async def open_session() -> PostgresAppendSession:
        return PostgresAppendSession(await connect(settings, "appender"))

    monitor = SlowCallMonitor(
        lambda: connect(settings, "blockers"),
        settings.long_transaction_seconds,
        patience=min(1.0, settings.append_timeout_seconds / 2),
    )
    group_commit = GroupCommit(
        open_session,
        monitor,
        queue_size=settings.append_queue_size,
        group_size=settings.append_group_size,
        wait_seconds=settings.append_wait_seconds,
        timeout_seconds=settings.append_timeout_seconds,
    )
    return monitor, group_commit


def create_handler(settings: Settings, store: EventStore, snapshots: Snapshots, group_commit: GroupCommit) -> Handler:
    """A handler, to be closed."""
    return Handler(
        store,
        snapshots,
        group_commit,
        SnapshotPolicy.of(settings),
        conflict_retries=settings.conflict_retries,
        cache_bytes=settings.state_cache_bytes,
        lock_timeout=settings.append_wait_seconds,
    )


def _lifespan(
    settings: Settings, encryption: KeyEncryption | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pool = await create_pool(settings, "command")
        monitor, group_commit = create_group_commit(settings)
        app.state.pool = pool
        app.state.group_commit = group_commit
        app.state.limit.in_append = lambda: group_commit.appending
        store = PostgresEventStore(pool)
        snapshots = Snapshots.of(store, settings)
        if settings.snapshot_key is None:
            _log.warning("snapshots are off: SNAPSHOT_KEY is not set")
        handler = app.state.handler = create_handler(settings, store, snapshots, group_commit)
        if encryption is None:
            _log.warning("personal data cannot be sealed", reason=NO_SECRET)
        keys = app.state.subject_keys = SubjectKeys(pool, encryption)
        catalogue_pool = await create_pool(settings, "catalogue", max_size=CONNECTIONS)
        app.state.catalogue = Catalogue(
            catalogue_pool, retries=settings.conflict_retries, seconds=settings.append_wait_seconds
        )
        throttle = app.state.throttle = Throttle(partial(read_behind, pool, settings.throttle_for.split(",")))
        group_commit.start()
        if settings.throttle_for:
            throttle.start()
        watching = asyncio.create_task(watch(app.state.limit), name="watch-event-loop")
        compacting = asyncio.create_task(compact_for_ever(pool, snapshots, settings), name="compactor")
        purge = asyncio.create_task(_purge_keys(pool, settings), name="purge-idempotency-keys")
        expiring = asyncio.create_task(reservation_expiry.run(pool, handler, settings), name="reservation-expiry")
        try:
            async with cached(keys) as app.state.cached_keys:
                yield
        finally:
            await cancel(watching, compacting, purge, expiring)
            await throttle.stop()
            await group_commit.stop()  # what was accepted is appended first
            await monitor.close()
            await handler.close()
            catalogue_pool.terminate()
            pool.terminate()

    return lifespan


async def _ready(app: FastAPI) -> None:
    if not app.state.group_commit.healthy:
        raise NotReady("group commit has stopped")
    try:
        async with asyncio.timeout(2.0):
            writable = await event_log.takes_writes(app.state.pool)
    except CONNECTION_LOST as error:
        raise NotReady(f"PostgreSQL cannot be reached: {error!r}") from error
    except asyncpg.PostgresError as error:
        raise NotReady("the event log cannot be read; has `orders migrate` been run?") from error
    if not writable:
        raise NotReady("PostgreSQL takes no writes: it is a standby, or was demoted")


async def _purge_keys(pool: Connection, settings: Settings) -> None:
    """Deletes old Idempotency-Keys at intervals; where the database cannot be reached, at the next one."""
    older_than = timedelta(days=settings.idempotency_days)
    while True:
        try:
            while purged := await idempotency_keys.purge_keys(pool, older_than):
                _log.info("idempotency keys purged", keys=purged)
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            _log.warning("idempotency keys not purged", error=repr(error))
        await asyncio.sleep(settings.purge_interval_seconds)
