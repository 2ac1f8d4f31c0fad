"""What a read model is to the query service: its name, the store that holds it, its reader and its routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import asyncpg
from fastapi import APIRouter
from redis.asyncio import Redis

from query_service.consistency_gate import CheckpointSignal
from query_service.fair_queue import FairQueue
from query_service.projection_status import StatusQuery
from shared.eventstore.feed import EVENT_LOG, Feed
from shared.settings import Settings

S = TypeVar("S")  # what a store reads with
R = TypeVar("R")  # the reader of a read model


class Servers(NamedTuple):
    """The connections that all read models share."""

    settings: Settings
    redis: Redis
    pool: asyncpg.Pool[asyncpg.Record]


@dataclass(frozen=True, slots=True)
class StoredReadModel(Generic[S]):
    """One read model in its store."""

    source: S
    status: StatusQuery
    signal: CheckpointSignal
    close: Callable[[], Awaitable[None]]
    queue: FairQueue | None = None  # of queries, where each costs much


OpenStore: TypeAlias = Callable[[Servers, str], StoredReadModel[S]]  # gets the read model's name


@dataclass(frozen=True, slots=True)
class ReadModel(Generic[S, R]):
    """Tokens, `Projection-Lag`, the status in `/projections` and readiness follow from this entry."""

    name: str  # of its projection
    store: OpenStore[S]
    reader: Callable[[S], R]
    router: APIRouter
    tag: str  # of its routes in the OpenAPI document
    tag_description: str
    required: bool = False  # the service is not ready without it
    feed: Feed = EVENT_LOG  # that its projection is folded from
