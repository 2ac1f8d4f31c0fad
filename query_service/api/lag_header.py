"""Puts `Projection-Lag` on every answer, errors included. The middleware does it, so no route can omit it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.types import Scope

from query_service.projection_lag import HEADER, UNKNOWN, LagEstimate, MaxLag
from shared.http.response_headers import ResponseHeaders

_NAME = HEADER.lower().encode()
_CURRENT = ((_NAME, b"0"),)
_UNKNOWN = ((_NAME, UNKNOWN.encode()),)

_DESCRIBED: dict[str, Any] = {
    HEADER: {
        "description": "How stale the answer is, or would have been: the age in milliseconds of the oldest event that"
        " its source does not show; 0 when it shows every event. It grows while a read model is stuck; a parked"
        " document has a `Projection-Parked` header as well. While the lag cannot be measured, the value grows from"
        f" the last measurement and is an upper bound. `{UNKNOWN}` until first measured, and while the missing events"
        " have a time in the future. History, `as_of`, `known_at`"
        " and live updates are read from the log itself, so 0, or the lag of the replica; for an event stream, of its"
        " beginning. For `/projections`, the largest lag of all read models.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^([0-9]+|{UNKNOWN})$"},
        "example": "0",
    }
}


def lag_header(*routers: tuple[APIRouter, LagEstimate | MaxLag], otherwise: LagEstimate | MaxLag) -> ResponseHeaders:
    """Each router with the lag of its answers; `otherwise` is that of an answer without a route.

    Health, metrics and documentation carry no such header.
    """
    lags: dict[Callable[..., Any] | None, LagEstimate | MaxLag] = {
        route.endpoint: lag for router, lag in routers for route in router.routes if isinstance(route, APIRoute)
    }
    lags[None] = otherwise

    def headers(scope: Scope) -> tuple[tuple[bytes, bytes], ...]:
        lag = scope.get("lag") or lags.get(scope.get("endpoint"))
        if lag is None:
            return ()
        milliseconds = lag.milliseconds
        if milliseconds == 0:
            return _CURRENT
        return _UNKNOWN if milliseconds is None else ((_NAME, b"%d" % milliseconds),)

    return ResponseHeaders(headers, _DESCRIBED)


def answer_from(request: Request, *read_models: str) -> None:
    """Call where a route answers from several read models: `Projection-Lag` is then the largest of theirs."""
    lags = request.app.state.lags
    request.scope["lag"] = MaxLag(*[lags[name] for name in read_models])


def answer_from_log(request: Request) -> None:
    """Call where a route of a read model answers from the log instead: `Projection-Lag` is then the log's."""
    request.scope["lag"] = request.app.state.log_lag
