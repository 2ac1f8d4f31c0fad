"""The read model of revenue: sums by day, currency and status, in PostgreSQL."""

from __future__ import annotations

from datetime import date, timedelta
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from query_service.api.dependencies import answer
from query_service.api.requests import (
    ETAG_EXAMPLE,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    PARKED_STREAMS_HEADER,
    TOKEN_HEADERS,
    TOKEN_REFUSALS,
    answer_headers,
    unless_known,
)
from query_service.client_limit import WAITING, ClientLimitReached
from query_service.consistency_gate import ProjectionLagging, ProjectionRebuilding
from query_service.fair_queue import TooManyCostlyReads
from query_service.log_reader import LogUnavailable
from query_service.postgresql_reader import MAX_LINES, PostgresReader
from query_service.postgresql_store import in_postgresql
from query_service.read_model import ReadModel
from query_service.read_result import AnswerTooLarge, ReadModelUnavailable, ReadResult, RollupLines
from shared.aggregates.order import OrderStatus
from shared.currencies import exponent_of
from shared.exact_integers import exact
from shared.http.fields import CURRENCY_PATTERN, Date
from shared.http.openapi import REFUSED, responses
from shared.identity.access import allowed
from shared.identity.caller import READERS

# --- reader --------------------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """Amounts are in minor units; from 2^53 on in decimal digits."""

    day: date
    currency: str
    currency_exponent: int
    status: str
    orders: int
    placed: int | str
    paid: int | str
    cancelled: int | str


_COLUMNS = ("day", "currency", "status", "orders", "placed", "paid", "cancelled")


class RevenueReader:
    def __init__(self, reader: PostgresReader) -> None:
        self._reader = reader

    async def between(self, first: date, last: date, currency: str | None) -> ReadResult[RollupLines]:
        """The lines of those days, both included, by day, currency and status. Raises `ReadModelUnavailable` and
        `AnswerTooLarge`."""
        days = "line.day between $2 and $3 and ($4::text is null or line.currency = $4)"
        result = await self._reader.lines("revenue_by_day", _COLUMNS, days, first, last, currency)
        if len(result.value.lines) > MAX_LINES:
            raise _too_large()
        return result


def _too_large() -> AnswerTooLarge:
    return AnswerTooLarge.because("query/currency", "Ask for one currency, or for fewer days.", MAX_LINES, "lines")


def _line(columns: tuple[Any, ...]) -> Line:
    day, currency, status, orders, *amounts = columns
    placed, paid, cancelled = (exact(int(amount)) for amount in amounts)
    return Line(day, currency, exponent_of(currency), status, orders, placed, paid, cancelled)


# --- documents -----------------------------------------------------------------------------------------------------


# A day's orders can cost more than a reader that takes numbers for doubles represents exactly.
Amount = int | Annotated[str, Field(pattern="^[1-9][0-9]{15,}$")]


class RevenueLine(BaseModel):
    day: date = Field(description="on which the orders were placed, in UTC")
    currency: str = Field(description="ISO 4217")
    currency_exponent: int = Field(description="decimal digits of the minor unit: JPY 0, GBP 2, KWD 3")
    status: OrderStatus = Field(description="of the orders now")
    orders: int = Field(description="number of orders")
    placed: Amount = Field(description="total of the orders, in minor units; from 2^53 on a string of digits")
    paid: Amount = Field(description="amount paid for them, likewise")
    cancelled: Amount = Field(description="total of the cancelled ones, likewise")


class RevenueReport(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "from": "2010-12-01",
                "to": "2010-12-31",
                "currency": "GBP",
                "lines": [
                    {
                        "day": "2010-12-01",
                        "currency": "GBP",
                        "currency_exponent": 2,
                        "status": "PENDING",
                        "orders": 2,
                        "placed": 7_128,
                        "paid": 0,
                        "cancelled": 0,
                    },
                ],
            }
        }
    )
    first: date = Field(alias="from")
    last: date = Field(alias="to")
    currency: str | None
    lines: list[RevenueLine] = Field(description="by day, currency and status")


# --- routes --------------------------------------------------------------------------------------------------------

router = APIRouter(tags=["reports"])

MAX_DAYS = 366


class Span(BaseModel):
    model_config = ConfigDict(extra="forbid")
    first: Date = Field(alias="from", description="the first day (UTC)", examples=["2010-12-01"])
    last: Date = Field(
        alias="to", description=f"the last day, included; at most {MAX_DAYS} days in all", examples=["2010-12-31"]
    )
    currency: str | None = Field(
        None, pattern=CURRENCY_PATTERN, description="ISO 4217; without it, every currency", examples=["GBP"]
    )

    @model_validator(mode="after")
    def _bounded(self) -> Span:
        if not timedelta(0) <= self.last - self.first < timedelta(days=MAX_DAYS):
            raise PydanticCustomError(
                "bad-range", "Let from be no later than to, and give at most {maximum} days.", {"maximum": MAX_DAYS}
            )
        return self


@router.get(
    "/reports/revenue",
    summary="Revenue by day, currency and status",
    description="Counts every order under the day it was placed (UTC) and the status it has now. `placed` is the total"
    " of the orders, `paid` what was paid for them, `cancelled` the total of the cancelled ones (a cancelled order that"
    " had been paid counts in all three). Amounts are in minor units and never mixed between currencies. Combinations"
    " without orders are left out.",
    response_model=RevenueReport,
    responses={
        200: {"description": "The report", "headers": answer_headers(ETAG_EXAMPLE) | PARKED_STREAMS_HEADER},
        **NOT_MODIFIED,
        **responses(
            *REFUSED,
            *TOKEN_REFUSALS,
            (422, "invalid-request", "A parameter is missing or not acceptable, or the range is too long."),
            (_too_large(), f"The report has more than {MAX_LINES} lines."),
            (ClientLimitReached(WAITING, 500), "Too many queries of the client wait for their token."),
            (TooManyCostlyReads(), "Too many reads that cost much wait, of this client or of all."),
            (ProjectionLagging(1_230, 1_234, 7), "The read model did not reach the Consistency-Token in time."),
            (ProjectionRebuilding(), "The read model is being built from the log."),
            (ReadModelUnavailable("PostgreSQL"), "PostgreSQL, which stores the read model, does not answer."),
            (LogUnavailable(), "PostgreSQL does not answer, which was needed to judge a Consistency-Token."),
        ),
    },
    openapi_extra={"parameters": [*TOKEN_HEADERS, IF_NONE_MATCH]},
)
@allowed(*READERS)
async def get_revenue(request: Request, span: Annotated[Span, Query()]) -> Response:
    _, (lines, parked), headers = await answer(
        request, REVENUE_BY_DAY, lambda revenue, _: revenue.between(span.first, span.last, span.currency)
    )
    if parked:
        headers["Projection-Parked-Streams"] = str(parked)
    report = {
        "from": span.first,
        "to": span.last,
        "currency": span.currency,
        "lines": [_line(line)._asdict() for line in lines],
    }
    body = msgspec.json.encode(report)
    return unless_known(request, body, f'"{blake2b(body, digest_size=12).hexdigest()}"', headers)


REVENUE_BY_DAY = ReadModel(
    name="revenue_by_day",
    store=in_postgresql,
    reader=RevenueReader,
    router=router,
    tag="reports",
    tag_description="Sums over orders, in PostgreSQL.",
)
