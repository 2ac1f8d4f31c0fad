"""The document of one aggregate over HTTP: from the read model that has one for each, of the past from the log."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import msgspec
from fastapi import Request
from starlette.responses import Response

from query_service.api.dependencies import answer
from query_service.api.log_queries import Opened, answer_past_state, not_found
from query_service.api.requests import TOKEN_REFUSALS, unless_known
from query_service.checkpoint_subscription import TooManyWaiting
from query_service.client_limit import WAITING, ClientLimitReached
from query_service.coalescing_reader import TooManyReads
from query_service.consistency_gate import ProjectionLagging, ProjectionRebuilding
from query_service.log_reader import LogUnavailable
from query_service.parked_document import owner_of_parked, parked_headers
from query_service.read_model import ReadModel
from query_service.read_result import Document, ReadModelUnavailable, ReadResult
from shared.aggregates.aggregate import Aggregate
from shared.eventstore.token import ConsistencyToken
from shared.http.openapi import REFUSED, Described
from shared.http.request_headers import header
from shared.identity.access import limited_to_owner

UNAVAILABLE: tuple[Described, ...] = (
    *TOKEN_REFUSALS,
    (ProjectionLagging(1_230, 1_234, 7), "The read model did not reach the Consistency-Token in time."),
    (ProjectionRebuilding(), "The read model is being built from the log."),
    (ReadModelUnavailable(), "Redis does not answer."),
    (LogUnavailable(), "PostgreSQL does not answer, which was needed to judge a foreign Consistency-Token."),
    (TooManyWaiting(), "Too many queries wait for their token."),
    (TooManyReads(), "Too many queries wait for Redis."),
    (ClientLimitReached(WAITING, 500), "Too many queries of the client wait for their token."),
    *REFUSED,
)


class DocumentReader(Protocol):
    def one(self, document_id: str, at_least: ConsistencyToken | None, /) -> Awaitable[ReadResult[Document]]: ...


D = TypeVar("D", bound=DocumentReader)


async def answer_document(
    request: Request,
    aggregate: Aggregate[Any, Any],
    read_model: ReadModel[Any, D],
    aggregate_id: str,
    opened: Opened | None = None,
) -> Response:
    """The aggregate's document now, or at the point in time that the request names, with its sealed texts `opened`. A
    caller that is limited to an owner gets 404 for the document of another one.

    Raises what `answer`, `answer_past_state`, `parked_headers` and `opened` raise.
    """
    if request.scope["query_string"] and request.query_params:
        return await answer_past_state(request, aggregate, aggregate_id, opened)
    at, document, headers = await answer(
        request, read_model, lambda reader, at_least: reader.one(aggregate_id, at_least)
    )
    owner = limited_to_owner(request.scope)
    if owner is None or belongs_to(document, aggregate, owner):
        headers |= parked_headers(document, at, header(request.scope, b"consistency-token"))
        if (body := document.body) is not None:
            erased = False
            if opened is not None:
                body, erased = await opened(body)
            return unless_known(request, body, at.etag(document), headers, erased=erased)
    return not_found(request, aggregate, f"There is no {aggregate.noun} {aggregate_id!r}.", headers)


def belongs_to(document: Document, aggregate: Aggregate[Any, Any], owner_id: str) -> bool:
    """False for a document that does not exist, too."""
    assert aggregate.owner is not None
    body = document.body
    if body is None:
        return owner_of_parked(document) == owner_id
    # A document begins with its id and its owner's, or is its own owner, so it need not be decoded. No text within it
    # has a bare quote.
    owned = _member(aggregate.owner.field, owner_id)
    return body.startswith(owned, body.find(b",") + 1) or body.startswith(owned, 1)


@lru_cache(maxsize=1_000)
def _member(name: str, value: str) -> bytes:
    return b'"%b":%b' % (name.encode(), msgspec.json.encode(value))
