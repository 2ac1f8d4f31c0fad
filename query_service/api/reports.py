"""Reports: sums over orders."""

from __future__ import annotations

import re
from datetime import date, timedelta
from hashlib import blake2b
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from starlette.responses import Response

from query_service.api.models import RevenueReport
from query_service.api.requests import (
    IF_NONE_MATCH,
    NOT_MODIFIED,
    PARKED_STREAMS_HEADER,
    TOKEN_HEADERS,
    answer_headers,
    unless_known,
)
from query_service.api.side import answer, query_side
from shared.http import problems

router = APIRouter(tags=["reports"])

MOST_DAYS = 366

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _only_dates(value: object) -> object:
    # Pydantic would also take times and seconds since 1970.
    if not isinstance(value, str) or _DATE.fullmatch(value) is None:
        raise ValueError("should be a date, such as 2026-01-31")
    return value


Day = Annotated[date, BeforeValidator(_only_dates)]


class Span(BaseModel):
    model_config = ConfigDict(extra="forbid")
    first: Day = Field(alias="from", description="the first day (UTC)", examples=["2010-12-01"])
    last: Day = Field(
        alias="to", description=f"the last day, included; at most {MOST_DAYS} days in all", examples=["2010-12-31"]
    )
    currency: str | None = Field(
        None, pattern="^[A-Z]{3}$", description="ISO 4217; without it, every currency", examples=["GBP"]
    )

    @model_validator(mode="after")
    def _bounded(self) -> Span:
        if not timedelta(0) <= self.last - self.first < timedelta(days=MOST_DAYS):
            raise ValueError(f"from should not be after to, and the two hold at most {MOST_DAYS} days")
        return self


@router.get(
    "/reports/revenue",
    summary="Revenue by day, currency and status",
    description="Counts every order under the day it was placed (UTC) and the status it has now. `placed` is what the"
    " orders cost, `paid` what was paid for them, `cancelled` what the cancelled ones cost (a cancelled order that had"
    " been paid counts in all three). Amounts are in minor units and never mixed between currencies. Combinations"
    " without orders are left out.",
    response_model=RevenueReport,
    responses={
        200: {"description": "The report", "headers": answer_headers('"c0ffee"') | PARKED_STREAMS_HEADER},
        **NOT_MODIFIED,
        **problems.responses(
            (400, "malformed-token", "The Consistency-Token is not one of ours."),
            (400, "unknown-log", "The Consistency-Token belongs to another event log."),
            (422, "invalid-request", "A parameter is missing, not acceptable or unknown, or the range is too long."),
            (503, "projection-lagging", "The read model did not reach the Consistency-Token in time."),
            (503, "projection-rebuilding", "The read model is being built from the log."),
            (503, "read-model-unavailable", "PostgreSQL, where the read model is kept, does not answer."),
            (503, "log-unavailable", "PostgreSQL does not answer, which was needed to judge a Consistency-Token."),
        ),
    },
    openapi_extra={"parameters": [*TOKEN_HEADERS, IF_NONE_MATCH]},
)
async def get_revenue(request: Request, span: Annotated[Span, Query()]) -> Response:
    side = query_side(request)
    _, (lines, parked), headers = await answer(
        side, request, lambda _: side.revenue.between(span.first, span.last, span.currency), side.revenue_freshness
    )
    if parked:
        headers["Projection-Parked-Streams"] = str(parked)
    report = {
        "from": span.first,
        "to": span.last,
        "currency": span.currency,
        "lines": [line._asdict() for line in lines],
    }
    body = msgspec.json.encode(report)
    return unless_known(request, body, f'"{blake2b(body, digest_size=12).hexdigest()}"', headers)
