"""Puts `Projection-Lag` on every answer, errors included. No route does it itself, so none can forget it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.types import Scope

from query_service.lag import HEADER, UNKNOWN, Furthest, Lag
from shared.http.response_headers import ResponseHeaders

_NAME = HEADER.lower().encode()
_CURRENT = ((_NAME, b"0"),)
_UNKNOWN = ((_NAME, UNKNOWN.encode()),)

_DESCRIBED: dict[str, Any] = {
    HEADER: {
        "description": "How stale the answer is, or would have been: milliseconds since the oldest event was recorded"
        " that what it is read from does not show; 0 when nothing is missing. It grows while a read model is stuck;"
        " an order that is parked says so with `Projection-Parked`."
        " While nothing can be measured it grows from what was known last: then it is an upper bound."
        f" `{UNKNOWN}` when nothing was ever measured. History, `as_of`, `known_at` and live updates are read from the"
        " log itself, so 0, or the lag of the replica; that of an event stream is of its beginning. `/projections` says"
        " that of the read model furthest behind.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^([0-9]+|{UNKNOWN})$"},
        "example": "0",
    }
}


class Lags(NamedTuple):
    """Of everything that answers are read from."""

    orders: Lag
    revenue: Lag
    log: Lag


def stamp_of(*routers: tuple[APIRouter, Lag | Furthest], otherwise: Lag) -> ResponseHeaders:
    """Each router with the lag that its answers say; `otherwise` is said where there is no such route.

    Health, metrics and documentation say nothing.
    """
    lags: dict[Callable[..., Any] | None, Lag | Furthest] = {
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


def answer_from_log(request: Request) -> None:
    """For a question that its route does not answer from its read model."""
    lags: Lags = request.app.state.lags
    request.scope["lag"] = lags.log
