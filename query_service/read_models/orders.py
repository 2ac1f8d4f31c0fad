"""The orders read model: one order, all orders, a customer's orders."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from starlette.responses import Response

from query_service.api.dependencies import answer
from query_service.api.documents import UNAVAILABLE, answer_document, belongs_to
from query_service.api.log_queries import TIME_IN_THE_FUTURE, TIMES
from query_service.api.pages import answer_page, etag_of_body
from query_service.api.requests import (
    ETAG_EXAMPLE,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    PARKED_HEADER,
    TOKEN_HEADERS,
    MalformedCursor,
    answer_headers,
    decode_cursor,
    unless_known,
)
from query_service.coalescing_reader import CoalescingReader
from query_service.fair_queue import FairQueue, TooManyCostlyReads
from query_service.opened_documents import OpenedDocuments
from query_service.parked_document import ProjectionParked, parked_headers
from query_service.read_model import ReadModel
from query_service.read_models.order_documents import Order, OrderPage, Orders
from query_service.read_models.order_includes import INCLUDE, answer_with_includes
from query_service.read_models.order_texts import open_order, open_orders
from query_service.read_models.products import CARDS_TOO_LARGE
from query_service.read_result import AnswerTooLarge, Document, IndexPage, ReadPosition, ReadResult
from query_service.redis_store import in_redis
from shared.aggregates.order import ORDER, OrderStatus
from shared.eventstore.token import ConsistencyToken
from shared.http.client import client_of
from shared.http.fast_route import FastRoute
from shared.http.fields import Id
from shared.http.openapi import UNREADABLE, Described, responses
from shared.http.request_headers import header
from shared.identity.access import allowed, check_owner, conceal, limited_to_owner
from shared.identity.caller import READERS, ForeignOwner, Role
from shared.privacy.sealed import Unopenable
from shared.privacy.subject_keys import SubjectKeysUnavailable
from shared.read_models import order_indexes
from shared.read_models.keys import Checkpoint

MAX_IDS = 100
MAX_ANSWER_BYTES = 8 * 1024 * 1024  # of the orders of one answer
_READ_TOGETHER = 10  # orders, so that little more than an answer is in memory
_ANSWERS_AT_ONCE = 2  # of several orders


def _too_large() -> AnswerTooLarge:
    return AnswerTooLarge.because("query/ids", "Ask for fewer orders.", MAX_ANSWER_BYTES, "bytes")


# --- reader --------------------------------------------------------------------------------------------------------


class SeveralOrders(NamedTuple):
    body: bytes  # a JSON array
    found: int
    parked: list[Document]


class OrdersReader:
    def __init__(self, reader: CoalescingReader) -> None:
        self._reader = reader
        self._answers = FairQueue(_ANSWERS_AT_ONCE)  # each holds several documents

    def one(self, order_id: str, at_least: ConsistencyToken | None) -> asyncio.Future[ReadResult[Document]]:
        return self._reader.document(order_id, at_least)

    async def several(
        self,
        order_ids: Sequence[str],
        customer_id: str | None,
        client: str,
        opened: OpenedDocuments,
        at_least: ConsistencyToken | None,
    ) -> ReadResult[SeveralOrders]:
        """Those of the customer (None: of any), as of the earliest position at which one of the ids was read. Raises
        `AnswerTooLarge`, `TooManyCostlyReads` and what `open_orders` raises."""
        ends: list[tuple[ReadPosition | None, int]] = []
        documents: list[Document] = []
        async with self._answers.slot(client):
            for begin in range(0, len(order_ids), _READ_TOGETHER):
                some = order_ids[begin : begin + _READ_TOGETHER]
                for at, found, partition in await asyncio.gather(
                    *(self._reader.document(order_id, at_least) for order_id in some)
                ):
                    ends.append((at, partition))
                    if customer_id is None or belongs_to(found, ORDER, customer_id):
                        documents.append(found)
                if sum([len(document.body or b"") for document in documents]) > MAX_ANSWER_BYTES:
                    raise _too_large()
            parked = [document for document in documents if document.parked is not None]
            bodies = [document.body for document in documents if document.body is not None]
            count = len(documents)
            documents = []  # their bytes are held once
            several = SeveralOrders(await open_orders(opened, b"[%b]" % b",".join(bodies)), count, parked)
        checkpoints = [None if at is None else at.checkpoint for at, _ in ends]
        if (slowest := Checkpoint.slowest(checkpoints)) is None:
            return ReadResult(None, several)
        _, lagging = min(ends, key=lambda end: 0 if end[0] is None else end[0].checkpoint.position)
        return ReadResult(ReadPosition.of(slowest), several, lagging)

    def newest(
        self, customer_id: str | None, status: OrderStatus | None, after: str | None, limit: int
    ) -> asyncio.Future[ReadResult[IndexPage]]:
        """The newest orders of this customer and in this status (None: any), or those after the entry `after`."""
        return self._reader.page(_index(customer_id, status), after, limit)


def _index(customer_id: str | None, status: OrderStatus | None) -> str:
    if customer_id is None:
        return order_indexes.ALL if status is None else order_indexes.with_status(status)
    if status is None:
        return order_indexes.of_customer(customer_id)
    return order_indexes.of_customer_with_status(customer_id, status)


# --- routes --------------------------------------------------------------------------------------------------------

router = APIRouter(tags=["orders"], route_class=FastRoute)

_SEALED: tuple[Described, ...] = (
    (SubjectKeysUnavailable("PostgreSQL does not answer"), "The keys of personal data cannot be read."),
    (Unopenable("bXkga2V5IGlkIDEy", "order.note"), "A stored value was not sealed as this field of this customer."),
)
_INVALID: Described = (422, "invalid-request", "A parameter is not acceptable.")
_PARKED: Described = (
    ProjectionParked(1_200, "OrderShipped"),
    "The read model could not apply an event of this order that the token names.",
)
_MALFORMED_CURSOR: Described = (MalformedCursor(), "The cursor is not one of ours.")
_TOO_LARGE: Described = (_too_large(), "The orders have more than 8 MiB together.")
_TOO_MANY: Described = (TooManyCostlyReads(), "Too many reads of several orders wait, of this client or of all.")

OrderId = Annotated[Id, Path(description="as given or made when the order was placed", examples=["536365"])]
CustomerId = Annotated[Id, Path(examples=["17850"])]


class Listing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    status: OrderStatus | None = Field(None, description="only orders in this status")
    limit: int = Field(20, ge=1, le=100, description="orders on a page")
    cursor: str | None = Field(
        None, max_length=200, description="next_cursor of the page before", examples=["MGUxNTY1NDBkNDg5NjAwNTM2MzY1"]
    )


_IDS = TypeAdapter(Annotated[list[Id], Field(min_length=1, max_length=MAX_IDS)])


class OrderListing(Listing):
    ids: str | None = Field(
        None,
        max_length=MAX_IDS * 65,
        description=f"these orders instead, whole: up to {MAX_IDS} ids, with commas",
        examples=["536365,536366"],
    )

    @model_validator(mode="after")
    def _ids_alone(self) -> OrderListing:
        if self.ids is not None and len(self.model_fields_set) > 1:
            raise ValueError("ids cannot be combined with status, limit or cursor")
        return self


@router.get(
    "/orders/{order_id}",
    summary="One order, now or at an earlier time",
    description="The order as the read model shows it. With the token of a command's acknowledgement, the answer"
    " shows the events of that command.\n\n"
    "With `as_of`, `known_at` or both: the same document as it was then, folded from the log itself.\n\n"
    "What it says about the customer, its address, note and reasons, is null once the customer is erased, at no time"
    " shown again.",
    response_model=Order,
    responses={
        200: {"description": "The order", "headers": answer_headers(ETAG_EXAMPLE) | PARKED_HEADER},
        **NOT_MODIFIED,
        **responses(
            *UNAVAILABLE,
            *_SEALED,
            _PARKED,
            _INVALID,
            TIME_IN_THE_FUTURE,
            (404, "order-not-found", "There is no such order, or was none then; Consistency-Token says as of when."),
            (ForeignOwner("customer", "13047"), "With `include`: the caller may not read this customer."),
            CARDS_TOO_LARGE,
            (TooManyCostlyReads(), "With `include`: too many reads of products wait, of this client or of all."),
            *UNREADABLE,
        ),
    },
    openapi_extra={"parameters": [INCLUDE, *TIMES, *TOKEN_HEADERS, IF_NONE_MATCH]},
)
@allowed(Role.CUSTOMER, *READERS)
async def get_order(request: Request, order_id: OrderId) -> Response:
    if request.scope["query_string"] and "include" in request.query_params:
        return await answer_with_includes(request, ORDERS, order_id)
    opened = partial(open_order, request.app.state.opened_documents)
    return await answer_document(request, ORDER, ORDERS, order_id, opened)


_LIST_PROBLEMS: tuple[Described, ...] = (*UNAVAILABLE, _INVALID, _MALFORMED_CURSOR)
_PAGE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "A page of orders", "headers": answer_headers(ETAG_EXAMPLE)},
    **NOT_MODIFIED,
    **responses(*_LIST_PROBLEMS),
}


@router.get(
    "/orders",
    summary="All orders, newest first, or those with the given ids",
    description="By the time they were placed, then by id, both descending. Following `next_cursor` neither repeats"
    " nor misses an order, whatever is placed meanwhile.\n\n"
    "With `ids`: those orders, whole, in the order of the ids; one that does not exist is left out.\n\n"
    "A customer gets its own orders alone.",
    response_model=OrderPage | Orders,
    responses={
        200: {"description": "A page of orders, or orders", "headers": answer_headers(ETAG_EXAMPLE) | PARKED_HEADER},
        **NOT_MODIFIED,
        **responses(*UNAVAILABLE, *_SEALED, _PARKED, _INVALID, _MALFORMED_CURSOR, _TOO_LARGE, _TOO_MANY),
    },
    openapi_extra={"parameters": [*TOKEN_HEADERS, IF_NONE_MATCH]},
)
@allowed(Role.CUSTOMER, *READERS)
async def list_orders(request: Request, listing: Annotated[OrderListing, Query()]) -> Response:
    if listing.ids is not None:
        return await _answer_orders(request, _read_ids(listing.ids))
    return await _list(request, limited_to_owner(request.scope), listing)


def _read_ids(given: str) -> list[str]:
    """Each once. Raises `RequestValidationError`."""
    try:
        return list(dict.fromkeys(_IDS.validate_python(given.split(","))))
    except ValidationError as error:
        found = [{**one, "loc": ("query", "ids")} for one in error.errors(include_url=False, include_input=False)]
        raise RequestValidationError(found) from error


async def _answer_orders(request: Request, order_ids: Sequence[str]) -> Response:
    owner, client = limited_to_owner(request.scope), client_of(request.scope)
    documents: OpenedDocuments = request.app.state.opened_documents
    at, several, headers = await answer(
        request, ORDERS, lambda orders, at_least: orders.several(order_ids, owner, client, documents, at_least)
    )
    if owner is not None and several.found < len(order_ids):
        await conceal(request.scope)
    token = header(request.scope, b"consistency-token")
    if parked := [parked_headers(document, at, token) for document in several.parked]:
        headers |= min(parked, key=lambda one: int(one["Projection-Parked"]))
    body = b'{"orders":%b}' % several.body
    return unless_known(request, body, etag_of_body(body), headers)


@router.get(
    "/customers/{customer_id}/orders",
    summary="A customer's orders, newest first",
    description="As `GET /orders`, of one customer. A customer without orders has an empty list.",
    response_model=OrderPage,
    responses={
        **_PAGE_RESPONSES,
        **responses(
            *_LIST_PROBLEMS,
            (ForeignOwner("customer", "13047"), "The caller is another customer."),
        ),
    },
    openapi_extra={"parameters": [*TOKEN_HEADERS, IF_NONE_MATCH]},
)
@allowed(Role.CUSTOMER, *READERS)
async def list_customer_orders(
    request: Request, customer_id: CustomerId, listing: Annotated[Listing, Query()]
) -> Response:
    check_owner(request.scope, "customer", customer_id)
    return await _list(request, customer_id, listing)


async def _list(request: Request, customer_id: str | None, listing: Listing) -> Response:
    after = None if listing.cursor is None else decode_cursor(listing.cursor)
    _, page, headers = await answer(
        request, ORDERS, lambda orders, _: orders.newest(customer_id, listing.status, after, listing.limit)
    )
    return answer_page(request, "orders", page, headers)


ORDERS = ReadModel(
    name="orders",
    store=in_redis,
    reader=OrdersReader,
    router=router,
    tag="orders",
    tag_description="Orders as the read model shows them.",
    required=True,
)
