"""The stock read model: that of one product from Redis, of the past from the log."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import Response

from query_service.api import documents
from query_service.api.documents import answer_document
from query_service.api.log_queries import TIME_IN_THE_FUTURE, TIMES
from query_service.api.requests import (
    ETAG_EXAMPLE,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    PARKED_HEADER,
    TOKEN_HEADERS,
    answer_headers,
)
from query_service.coalescing_reader import CoalescingReader
from query_service.parked_document import ProjectionParked
from query_service.read_model import ReadModel
from query_service.read_result import Document, ReadResult
from query_service.redis_store import in_redis
from shared.aggregates.stock import STOCK
from shared.eventstore.token import ConsistencyToken
from shared.http.fast_route import FastRoute
from shared.http.fields import ProductId
from shared.http.openapi import UNREADABLE, responses
from shared.identity.access import allowed
from shared.identity.caller import READERS

router = APIRouter(tags=["stock"], route_class=FastRoute)


class StockReader:
    def __init__(self, reader: CoalescingReader) -> None:
        self._reader = reader

    def one(self, product_id: str, at_least: ConsistencyToken | None) -> asyncio.Future[ReadResult[Document]]:
        return self._reader.document(product_id, at_least)


_EXAMPLE: dict[str, Any] = {
    "product_id": "LANTERN",
    "on_hand": 197,
    "reserved": 6,
    "available": 191,
    "sold": 3,
    "last_event_at": "2026-01-31T14:30:00Z",
    "version": 5,
}


class Stock(BaseModel):
    """In pieces. Received and adjusted pieces are `sold`, `reserved` or `available`."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})
    product_id: str
    on_hand: int = Field(description="reserved and available")
    reserved: int = Field(description="for orders that were not shipped yet")
    available: int = Field(description="can be ordered")
    sold: int = Field(description="shipped, and not restocked")
    last_event_at: AwareDatetime = Field(description="business time of the latest event")
    version: int = Field(description="number of events so far; at an earlier time, of the last one that counts")


@router.get(
    "/products/{product_id}/stock",
    summary="The stock of one product, now or at an earlier time",
    description="As the read model shows it. With `as_of`, `known_at` or both: as it was then, folded from the log"
    " itself. A product is tracked, and has stock, from its first receipt or adjustment on.",
    response_model=Stock,
    responses={
        200: {"description": "The stock", "headers": answer_headers(ETAG_EXAMPLE) | PARKED_HEADER},
        **NOT_MODIFIED,
        **responses(
            *documents.UNAVAILABLE,
            (ProjectionParked(1_200, "StockReserved"), "The read model could not apply an event of this stock."),
            (422, "invalid-request", "A parameter is not acceptable."),
            TIME_IN_THE_FUTURE,
            (404, "stock-not-found", "The product is not tracked, or was not then; Consistency-Token says as of when."),
            *UNREADABLE,
        ),
    },
    openapi_extra={"parameters": [*TIMES, *TOKEN_HEADERS, IF_NONE_MATCH]},
)
@allowed(*READERS)
async def get_product_stock(
    request: Request,
    product_id: Annotated[ProductId, Path(description="as orders and receipts name it", examples=["LANTERN"])],
) -> Response:
    return await answer_document(request, STOCK, STOCKS, product_id)


STOCKS = ReadModel(
    name="stock",
    store=in_redis,
    reader=StockReader,
    router=router,
    tag="stock",
    tag_description="Pieces of each tracked product, as the read model shows them.",
)
