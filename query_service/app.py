"""The query service: answers from what the projector wrote, and from the log. Every client is built here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from query_service.api import events, history, projections
from query_service.api.dependencies import OpenReadModel, Queries
from query_service.api.event_documents import event_schemas
from query_service.api.lag_header import lag_header
from query_service.client_limit import WAITING, ClientLimit
from query_service.consistency_gate import ConsistencyGate
from query_service.feeds import Feeds
from query_service.live.subscriptions import open_subscriptions
from query_service.log_reader import LogReader
from query_service.opened_documents import OpenedDocuments
from query_service.projection_lag import LagEstimate, LagSource, LogLag, MaxLag, ProjectionLag, ReplicaLag, poll_lag
from query_service.read_model import ReadModel, Servers
from query_service.read_models import READ_MODELS
from query_service.stream_history import StreamHistory, open_history
from shared.aggregates import AGGREGATES
from shared.aio import cancel
from shared.errors import Unavailable
from shared.eventstore.blockers import monitor_blockers
from shared.eventstore.feed import EVENT_LOG
from shared.http import application
from shared.http.operations import NotReady
from shared.logs import get_logger
from shared.postgres import create_pool
from shared.privacy.key_encryption import KeyEncryption
from shared.privacy.subject_key_cache import SubjectKeyCache, cached
from shared.privacy.subject_keys import NO_SECRET, SubjectKeys
from shared.redis import create_redis
from shared.settings import Settings

_DESCRIPTION = """Reads documents that the projector updates from the event log, and the log itself.

Every answer says with `Projection-Lag` how stale it is, in milliseconds.

Every answer carries a `Consistency-Token`: send back the newest one you have, from here or from a command's
acknowledgement, and reads never go backwards.
"""

_log = get_logger()

Lags = Mapping[str, LagEstimate]  # by the read model's name


def create_app(settings: Settings) -> FastAPI:
    read_models = [*READ_MODELS.values()]
    lags = {read_model.name: LagEstimate() for read_model in read_models}
    log_lag = LagEstimate()
    encryption = KeyEncryption.of(settings)
    slowest = MaxLag(*lags.values())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            _open_queries(settings, read_models, lags) as queries,
            open_history(settings, queries.log) as stream_history,
            open_subscriptions(settings) as subscriptions,
            _open_keys(settings, encryption) as app.state.subject_keys,
            poll_lag(_lag_sources(settings, queries, stream_history, lags, log_lag)),
        ):
            app.state.opened_documents = OpenedDocuments(app.state.subject_keys)
            app.state.queries = queries
            app.state.history = stream_history
            app.state.subscriptions = subscriptions
            yield

    async def ready() -> None:
        for read_model in read_models:
            if read_model.required:
                await _check_ready(app.state.queries.read_models[read_model.name], settings.heartbeat_stale_seconds)

    taken = {route.path for one in read_models for route in one.router.routes if isinstance(route, APIRoute)}
    # Each router with the lag of its answers.
    routers: tuple[tuple[APIRouter, LagEstimate | MaxLag], ...] = (
        *((read_model.router, lags[read_model.name]) for read_model in read_models),
        (history.history_router(AGGREGATES.values(), taken), log_lag),
        (events.events_router(AGGREGATES.values()), log_lag),
    )
    app = application.create_api(
        title="Orders: query service",
        description=_DESCRIPTION,
        settings=settings,
        lifespan=lifespan,
        ready=ready,
        tags=[
            *({"name": read_model.tag, "description": read_model.tag_description} for read_model in read_models),
            {"name": history.TAG, "description": history.DESCRIPTION},
            {"name": events.TAG, "description": events.DESCRIPTION},
            {"name": "projections", "description": "How current the read models are."},
        ],
        schemas=event_schemas(AGGREGATES.values()),
        response_headers=lag_header(*routers, (projections.router, slowest), otherwise=slowest),
        for_operators=[projections.router],
    )
    app.state.log_lag = log_lag
    app.state.lags = lags
    application.add_routes(app, settings, *(router for router, _ in routers))
    return app


@asynccontextmanager
async def _open_keys(settings: Settings, encryption: KeyEncryption | None) -> AsyncIterator[SubjectKeyCache]:
    if encryption is None:
        _log.warning("personal data cannot be opened", reason=NO_SECRET)
    pool = await create_pool(settings, "keys", max_size=2, target="primary")
    try:
        async with cached(SubjectKeys(pool, encryption)) as cache:
            yield cache
    finally:
        pool.terminate()


@asynccontextmanager
async def _open_queries(
    settings: Settings, read_models: Sequence[ReadModel[Any, Any]], lags: Lags
) -> AsyncIterator[Queries]:
    async with AsyncExitStack() as stack:
        redis = create_redis(settings)
        stack.push_async_callback(redis.aclose)
        # While PostgreSQL hangs, the lag of each read model and that of the log hold one each.
        pool = await create_pool(settings, "query", max_size=len(read_models) + 2, target="primary")
        stack.callback(pool.terminate)
        # One connection for requests, one for the monitor: neither waits for the other.
        monitor_pool = await create_pool(settings, "blockers", max_size=2, target="primary")
        stack.callback(monitor_pool.terminate)
        logs = {feed: LogReader(pool, monitor_pool, feed) for feed in (EVENT_LOG, *(one.feed for one in read_models))}
        waiting = ClientLimit(WAITING, settings.token_waits_per_client)
        opened: dict[str, OpenReadModel] = {}
        for read_model in read_models:
            stored = read_model.store(Servers(settings, redis, pool), read_model.name)
            stack.push_async_callback(stored.close)
            stored.signal.start()
            stack.push_async_callback(stored.signal.close)
            gate = ConsistencyGate(stored.signal, logs[read_model.feed], lags[read_model.name], waiting)
            opened[read_model.name] = OpenReadModel(
                read_model.reader(stored.source), gate, stored.status, stored.queue, logs[read_model.feed]
            )
        monitoring = asyncio.create_task(
            monitor_blockers(monitor_pool, settings.long_transaction_seconds), name="blockers"
        )
        stack.push_async_callback(cancel, monitoring)
        yield Queries(
            logs[EVENT_LOG], Feeds(logs), opened, settings.token_wait_seconds, settings.long_transaction_seconds
        )


def _lag_sources(
    settings: Settings, queries: Queries, stream_history: StreamHistory, lags: Lags, log_lag: LagEstimate
) -> list[LagSource]:
    log = queries.log
    return [
        *(ProjectionLag(name, lags[name], opened.status, opened.log) for name, opened in queries.read_models.items()),
        ReplicaLag(log_lag, stream_history.reached, log) if settings.history_database_url else LogLag(log_lag, log),
    ]


async def _check_ready(read_model: OpenReadModel, stale_seconds: float) -> None:
    """Raises `NotReady`."""
    try:
        checkpoint, heartbeat, *_ = await read_model.status()
    except Unavailable as error:
        raise NotReady(error.detail) from error
    if checkpoint is None or checkpoint.rebuilding:
        raise NotReady("The read model is being built from the log.")
    if heartbeat is None:
        raise NotReady("Waiting for the projector: there is no heartbeat.")
    if heartbeat.age_seconds > stale_seconds:
        raise NotReady(f"The projector's last heartbeat is {heartbeat.age_seconds:.0f} s old.")
