"""Queries for orders."""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from query_service.api.history import TIME_IN_THE_FUTURE, TIMES, answer_order_then
from query_service.api.models import Order, OrderPage
from query_service.api.requests import (
    IF_NONE_MATCH,
    NOT_MODIFIED,
    PARKED_HEADER,
    TOKEN_HEADERS,
    OrderId,
    answer_headers,
    decode_cursor,
    encode_cursor,
    unless_known,
)
from query_service.api.side import answer, query_side
from query_service.parked import headers_of
from query_service.reading import Page
from shared.aggregates.order import OrderStatus
from shared.http import problems
from shared.http.fast_route import FastRoute
from shared.http.fields import Id

router = APIRouter(tags=["orders"], route_class=FastRoute)

_NOT_NOW = (
    (400, "malformed-token", "The Consistency-Token is not one of ours."),
    (400, "unknown-log", "The Consistency-Token belongs to another event log."),
    (503, "projection-lagging", "The read model did not reach the Consistency-Token in time."),
    (503, "projection-rebuilding", "The read model is being built from the log."),
    (503, "read-model-unavailable", "Redis does not answer."),
    (503, "log-unavailable", "PostgreSQL does not answer, which was needed to judge a foreign Consistency-Token."),
    (503, "too-many-waiting", "Too many queries wait for their token."),
    (503, "too-many-reads", "Too many queries wait for Redis."),
)
_INVALID = (422, "invalid-request", "A parameter is not acceptable or unknown.")

CustomerId = Annotated[Id, Path(examples=["17850"])]


class Listing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    status: OrderStatus | None = Field(None, description="only orders in this status")
    limit: int = Field(20, ge=1, le=100, description="orders on a page")
    cursor: str | None = Field(
        None, max_length=200, description="next_cursor of the page before", examples=["MGUxNTY1NDBkNDg5NjAwNTM2MzY1"]
    )


@router.get(
    "/orders/{order_id}",
    summary="One order, now or at an earlier time",
    description="The order as the read model shows it. With the token of a command's acknowledgement, the answer"
    " contains what that command did.\n\n"
    "With `as_of`, `known_at` or both: the same document as it was then, folded from the log itself. `as_of` asks what"
    " had happened by then, `known_at` what had been recorded by then, both together what was believed at `known_at`"
    " about `as_of`.",
    response_model=Order,
    responses={
        200: {"description": "The order", "headers": answer_headers('"3"') | PARKED_HEADER},
        **NOT_MODIFIED,
        **problems.responses(
            *_NOT_NOW,
            (503, "projection-parked", "The read model could not apply an event of this order that the token names."),
            _INVALID,
            TIME_IN_THE_FUTURE,
            (404, "order-not-found", "There is no such order, or was none then; Consistency-Token says as of when."),
            *problems.UNREADABLE,
        ),
    },
    openapi_extra={"parameters": [*TIMES, *TOKEN_HEADERS, IF_NONE_MATCH]},
)
async def get_order(request: Request, order_id: OrderId) -> Response:
    if request.scope["query_string"] and request.query_params:
        return await answer_order_then(request, order_id)
    side = query_side(request)
    at, document, headers = await answer(side, request, lambda at_least: side.orders.one(order_id, at_least))
    headers |= headers_of(document, at, request.headers.get("consistency-token"))
    if document.body is None or document.version is None:
        detail = f"There is no order {order_id!r}."
        return problems.problem(404, "order-not-found", "There is no such order", detail, request.url.path, headers)
    return unless_known(request, document.body, f'"{document.version.decode()}"', headers)


@router.get(
    "/orders",
    summary="All orders, newest first",
    description="By the time they were placed, then by id, both descending. Following `next_cursor` neither repeats"
    " nor misses an order, whatever is placed meanwhile.",
    response_model=OrderPage,
    responses={
        200: {"description": "A page of orders", "headers": answer_headers('"c0ffee"')},
        **NOT_MODIFIED,
        **problems.responses(*_NOT_NOW, _INVALID, (400, "malformed-cursor", "The cursor is not one of ours.")),
    },
    openapi_extra={"parameters": [*TOKEN_HEADERS, IF_NONE_MATCH]},
)
async def list_orders(request: Request, listing: Annotated[Listing, Query()]) -> Response:
    return await _list(request, None, listing)


@router.get(
    "/customers/{customer_id}/orders",
    summary="A customer's orders, newest first",
    description="As `GET /orders`, of one customer. A customer who has not ordered has an empty list.",
    response_model=OrderPage,
    responses={
        200: {"description": "A page of orders", "headers": answer_headers('"c0ffee"')},
        **NOT_MODIFIED,
        **problems.responses(*_NOT_NOW, _INVALID, (400, "malformed-cursor", "The cursor is not one of ours.")),
    },
    openapi_extra={"parameters": [*TOKEN_HEADERS, IF_NONE_MATCH]},
)
async def list_customer_orders(
    request: Request, customer_id: CustomerId, listing: Annotated[Listing, Query()]
) -> Response:
    return await _list(request, customer_id, listing)


async def _list(request: Request, customer_id: str | None, listing: Listing) -> Response:
    after = None if listing.cursor is None else decode_cursor(listing.cursor)
    side = query_side(request)
    _, page, headers = await answer(
        side, request, lambda _: side.orders.newest(customer_id, listing.status, after, listing.limit)
    )
    cursor = None if page.next_place is None else encode_cursor(page.next_place.decode())
    if cursor is not None:
        headers["Link"] = f'<{_next_page(request, cursor)}>; rel="next"'
    body = _render(page, cursor)
    return unless_known(request, body, f'"{blake2b(body, digest_size=12).hexdigest()}"', headers)


def _render(page: Page, cursor: str | None) -> bytes:
    next_cursor = b"null" if cursor is None else b'"%b"' % cursor.encode()
    return b'{"orders":[%b],"next_cursor":%b}' % (b",".join(page.summaries), next_cursor)


def _next_page(request: Request, cursor: str) -> str:
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    return f"{request.url.path}?{urlencode([*kept, ('cursor', cursor)])}"
