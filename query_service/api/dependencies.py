"""What the routes work with, and how a route reads a read model that has reached the request's token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

from fastapi import Request

from query_service.api.requests import preferred_wait
from query_service.consistency_gate import ConsistencyGate
from query_service.fair_queue import FairQueue
from query_service.feeds import Feeds
from query_service.log_reader import LogReader
from query_service.projection_status import StatusQuery
from query_service.read_model import ReadModel
from query_service.read_result import ReadPosition, ReadResult
from shared.eventstore.token import ConsistencyToken
from shared.http.client import client_of
from shared.http.request_headers import header

R = TypeVar("R")
T = TypeVar("T")

Read: TypeAlias = Callable[[R, ConsistencyToken | None], Awaitable[ReadResult[T]]]


class OpenReadModel(NamedTuple):
    reader: Any  # as the entry of the registry makes it
    gate: ConsistencyGate
    status: StatusQuery
    queue: FairQueue | None
    log: LogReader  # of its feed


class Queries(NamedTuple):
    log: LogReader
    feeds: Feeds
    read_models: Mapping[str, OpenReadModel]  # by name, in the order of the registry
    token_wait_seconds: float
    long_transaction_seconds: float


def queries_of(request: Request) -> Queries:
    queries: Queries = request.app.state.queries
    return queries


def _in_turn(queue: FairQueue, client: str, read: Read[R, T]) -> Read[R, T]:
    async def read_in_turn(reader: R, at_least: ConsistencyToken | None) -> ReadResult[T]:
        async with queue.slot(client):
            return await read(reader, at_least)

    return read_in_turn


async def answer(
    request: Request,
    read_model: ReadModel[Any, R],
    read: Read[R, T],
) -> tuple[ReadPosition, T, dict[str, str]]:
    """(position that the result shows, result of `read`, headers of the answer).

    Raises what `ConsistencyGate`, `Feeds.read` and `read` raise, and `TooManyCostlyReads`.
    """
    queries = queries_of(request)
    reader, gate, _, queue, _ = queries.read_models[read_model.name]
    if queue is not None:
        read = _in_turn(queue, client_of(request.scope), read)
    token = header(request.scope, b"consistency-token")
    if token is None:
        at, value, _ = await gate.read(lambda at_least: read(reader, at_least))
        assert at is not None
        return at, value, {"Consistency-Token": at.token}
    preferred = preferred_wait(header(request.scope, b"prefer"))
    wait = queries.token_wait_seconds if preferred is None else preferred
    client = client_of(request.scope)

    def read_at_least(wanted: ConsistencyToken | None) -> Awaitable[ReadResult[T]]:
        if wanted is None:
            return gate.read(lambda at_least: read(reader, at_least))
        return gate.read_at_least(wanted, wait, client, lambda at_least: read(reader, at_least))

    at, value, _ = await queries.feeds.read(read_model.feed, token, read_at_least)
    assert at is not None
    headers = {"Consistency-Token": at.token}
    if preferred is not None:
        headers["Preference-Applied"] = f"wait={preferred}"
    return at, value, headers
