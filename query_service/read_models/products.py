"""The products read model: cards, and lists of them. What is available comes from the stock read model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import Response

from query_service.api.dependencies import answer
from query_service.api.documents import UNAVAILABLE
from query_service.api.lag_header import answer_from
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
from query_service.fair_queue import FairQueue
from query_service.parked_document import ProjectionParked, parked_headers
from query_service.read_model import ReadModel
from query_service.read_models.stock import STOCKS
from query_service.read_result import AnswerTooLarge, Document, IndexPage, ReadPosition, ReadResult
from query_service.redis_store import in_redis
from shared.catalogue import CATALOGUE
from shared.eventstore.token import ConsistencyToken
from shared.http import problems
from shared.http.fast_route import FastRoute
from shared.http.fields import ProductId
from shared.http.openapi import Described, responses
from shared.http.request_headers import header
from shared.identity.access import allowed
from shared.identity.caller import READERS, Role
from shared.read_models import product_indexes
from shared.read_models.keys import Checkpoint

router = APIRouter(tags=["products"], route_class=FastRoute)

MAX_CARDS_BYTES = 8 * 1024 * 1024  # of the products of one answer
_READ_TOGETHER = 100
_ANSWERS_AT_ONCE = 2  # with several products
_NOTHING = Document(None, None)


def _too_large() -> AnswerTooLarge:
    return AnswerTooLarge.because("query/include", "Leave out products.", MAX_CARDS_BYTES, "bytes")


CARDS_TOO_LARGE: Described = (_too_large(), "With `include`: the cards of the products have more than 8 MiB together.")


# --- reader --------------------------------------------------------------------------------------------------------


class ProductsReader:
    def __init__(self, reader: CoalescingReader) -> None:
        self._reader = reader
        self._answers = FairQueue(_ANSWERS_AT_ONCE)  # each holds several documents

    def one(self, product_id: str, at_least: ConsistencyToken | None) -> asyncio.Future[ReadResult[Document]]:
        return self._reader.document(product_id, at_least)

    async def several(
        self, product_ids: Sequence[str], client: str, at_least: ConsistencyToken | None
    ) -> ReadResult[list[bytes]]:
        """The cards that there are, as of the earliest position at which one was read. Raises `AnswerTooLarge` and
        `TooManyCostlyReads`."""
        ends: list[ReadResult[Document]] = []
        cards: list[bytes] = []
        async with self._answers.slot(client):
            for begin in range(0, len(product_ids), _READ_TOGETHER):
                some = product_ids[begin : begin + _READ_TOGETHER]
                for found in await asyncio.gather(*(self._reader.document(one, at_least) for one in some)):
                    ends.append(found._replace(value=_NOTHING))
                    if found.value.body is not None:
                        cards.append(found.value.body)
                if sum(map(len, cards)) > MAX_CARDS_BYTES:
                    raise _too_large()
        slowest = Checkpoint.slowest([None if end.at is None else end.at.checkpoint for end in ends])
        if slowest is None:
            return ReadResult(None, cards)
        lagging = min(ends, key=lambda end: 0 if end.at is None else end.at.checkpoint.position)
        return ReadResult(ReadPosition.of(slowest), cards, lagging.lagging_partition)

    def newest(
        self, category: str | None, tag: str | None, after: str | None, limit: int
    ) -> asyncio.Future[ReadResult[IndexPage]]:
        """The newest products in this category or below it and with this tag (None: any), or those after an entry."""
        return self._reader.page(product_indexes.of(category, tag), after, limit)


# --- routes --------------------------------------------------------------------------------------------------------

_SUMMARY: dict[str, Any] = {
    "product_id": "LANTERN",
    "name": "WHITE METAL LANTERN",
    "brand": "Lumen",
    "category": "Home/Lighting",
    "tags": ["candle", "white"],
    "unit_price": 339,
    "currency": "GBP",
    "currency_exponent": 2,
    "sku": "LANTERN/WHITE",
    "review_count": 3,
    "review_average": 4.33,
    "retired": False,
    "created_at": "2026-01-31T14:30:00Z",
    "version": 4,
}


class ProductSummary(BaseModel):
    """Money in minor units."""

    model_config = ConfigDict(json_schema_extra={"example": _SUMMARY})
    product_id: str
    name: str
    brand: str | None
    category: str | None = Field(description="names from the root, separated by /")
    tags: list[str]
    unit_price: int
    currency: str
    currency_exponent: int = Field(description="decimal digits of the minor unit: JPY 0, GBP 2, KWD 3")
    sku: str | None
    review_count: int
    review_average: float | None = Field(description="of 1 to 5 stars, with two decimals; null without reviews")
    retired: bool = Field(description="no list shows it any more")
    created_at: AwareDatetime
    version: int = Field(description="number of changes, also by reviews; for If-Match")


class ProductCard(ProductSummary):
    model_config = ConfigDict(
        json_schema_extra={"example": {**_SUMMARY, "description": "For one candle.", "available": 191}}
    )
    description: str | None
    available: int | None = Field(description="pieces that can be ordered; null where stock is not tracked")


class ProductPage(BaseModel):
    products: list[ProductSummary]
    next_cursor: str | None = Field(examples=["MGUzYzY1NDBkNDg5NjAwTEFOVEVSTg"])


class ProductListing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    category: str | None = Field(
        None, max_length=203, description="in this category or below it", examples=["Home/Lighting"]
    )
    tag: str | None = Field(None, max_length=50, description="with this tag", examples=["candle"])
    limit: int = Field(20, ge=1, le=100, description="products on a page")
    cursor: str | None = Field(
        None, max_length=200, description="next_cursor of the page before", examples=["MGUzYzY1NDBkNDg5NjAwTEFOVEVSTg"]
    )


_INVALID: Described = (422, "invalid-request", "A parameter is not acceptable.")


@router.get(
    "/products/{product_id}",
    summary="The card of one product",
    description="With brand, tags, reviews and what is available. The card is as of the catalogue's feed and what is"
    " available as of the event log, so the answer has a token of each, separated by a comma. A retired product keeps"
    " its card.",
    response_model=ProductCard,
    responses={
        200: {"description": "The card", "headers": answer_headers(ETAG_EXAMPLE) | PARKED_HEADER},
        **NOT_MODIFIED,
        **responses(
            *UNAVAILABLE,
            (ProjectionParked(1_200, "ProductSaved"), "The read model could not apply a change that the token names."),
            _INVALID,
            (404, "product-not-found", "The catalogue does not have the product."),
        ),
    },
    openapi_extra={"parameters": [*TOKEN_HEADERS, IF_NONE_MATCH]},
)
@allowed(Role.CUSTOMER, *READERS)
async def get_product(
    request: Request,
    product_id: Annotated[ProductId, Path(description="as orders name it", examples=["LANTERN"])],
) -> Response:
    answer_from(request, PRODUCTS.name, STOCKS.name)
    token = header(request.scope, b"consistency-token")
    (at, found, headers), (stock_at, stock, others) = await asyncio.gather(
        answer(request, PRODUCTS, lambda reader, at_least: reader.one(product_id, at_least)),
        answer(request, STOCKS, lambda reader, at_least: reader.one(product_id, at_least)),
    )
    headers["Consistency-Token"] += f", {others['Consistency-Token']}"
    parked_headers(stock, stock_at, token)
    if parked := parked_headers(found, at, token):
        headers |= {**parked, "Consistency-Token": f"{parked['Consistency-Token']}, {others['Consistency-Token']}"}
    if found.body is None:
        path, root_path = request.url.path, request.scope["root_path"]
        detail = f"There is no product {product_id!r} in the catalogue."
        return problems.problem(
            404, "product-not-found", "There is no such product", detail, path, headers, root_path=root_path
        )
    body = b'%b,"available":%b}' % (found.body[:-1], _available(stock))
    return unless_known(request, body, etag_of_body(body), headers)


class _Stock(msgspec.Struct):
    available: int


_decode_stock = msgspec.json.Decoder(_Stock).decode


def _available(stock: Document) -> bytes:
    return b"null" if stock.body is None else b"%d" % _decode_stock(stock.body).available


@router.get(
    "/products",
    summary="Products, newest first",
    description="In a category or below it, with a tag, or both. Following `next_cursor` neither repeats nor misses a"
    " product, whatever is added meanwhile. Retired products are not listed.",
    response_model=ProductPage,
    responses={
        200: {"description": "A page of products", "headers": answer_headers(ETAG_EXAMPLE)},
        **NOT_MODIFIED,
        **responses(*UNAVAILABLE, _INVALID, (MalformedCursor(), "The cursor is not one of ours.")),
    },
    openapi_extra={"parameters": [*TOKEN_HEADERS, IF_NONE_MATCH]},
)
@allowed(Role.CUSTOMER, *READERS)
async def list_products(request: Request, listing: Annotated[ProductListing, Query()]) -> Response:
    after = None if listing.cursor is None else decode_cursor(listing.cursor)
    _, page, headers = await answer(
        request, PRODUCTS, lambda products, _: products.newest(listing.category, listing.tag, after, listing.limit)
    )
    return answer_page(request, "products", page, headers)


PRODUCTS = ReadModel(
    name="products",
    store=in_redis,
    reader=ProductsReader,
    router=router,
    tag="products",
    tag_description="Cards of the catalogue's products, as the read model shows them.",
    feed=CATALOGUE,
)
