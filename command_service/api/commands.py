"""What the routes of all commands have in common: how they are described, read, carried out and acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from command_service.api.acknowledgement import HEADERS, LOCATION, Acknowledgement, acknowledge
from command_service.api.bodies import CommandBody
from command_service.api.metadata import COMMAND_HEADERS, IF_MATCH, IF_MATCH_NEW, MalformedHeader, read_metadata
from command_service.append_queue import AppendQueueFull
from command_service.decision import StaleVersion
from command_service.domain.business_time import OccurredBeforePreviousEvent, OccurredInTheFuture
from command_service.group_commit import AppendOutcomeUnknown, LogUnavailable, ShuttingDown
from command_service.handler import Handler, KeyReused, VersionConflict
from command_service.throttle import Throttle, Throttled
from shared.http.fast_route import FastRoute
from shared.http.openapi import REFUSED, UNREADABLE, Described, responses
from shared.http.request_headers import headers_of

_NOW, _LATER = datetime(2026, 1, 31, 14, 30, tzinfo=UTC), datetime(2026, 1, 31, 14, 45, tzinfo=UTC)
_COMMAND_ID = "019ab2f4-7c1e-7d35-9d2c-6a2f7a1c9b10"
_ANY_COMMAND: tuple[Described, ...] = (
    (400, "malformed-json", "The body is not JSON."),
    (MalformedHeader("If-Match", 'one version in double quotes, such as "3"'), "A header cannot be read."),
    *REFUSED,
    (413, "body-too-large", "The body is larger than 512 KiB."),
    (415, "unsupported-media-type", "The body is not application/json."),
    (422, "invalid-request", "A value is missing, unknown or out of bounds; `errors` points at it."),
    (KeyReused(), "The Idempotency-Key came with another request before."),
    (OccurredInTheFuture(_LATER, _NOW), "occurred_at is more than a minute ahead of us."),
    (AppendQueueFull(1_000), "Too many commands are waiting; nothing was done."),
    (LogUnavailable(), "The event log cannot be reached; nothing was done."),
    (Throttled("orders", 60_000, 0.5), "A read model is more than 30 s behind, so only a share is admitted."),
    (ShuttingDown(), "The process is stopping; nothing was done."),
    (AppendOutcomeUnknown(_COMMAND_ID), "The log, or this process, was lost on the way."),
    *UNREADABLE,
)
STALE: Described = (StaleVersion(1, 2), "If-Match names another version than the current one.")
ANY_CHANGE: tuple[Described, ...] = (
    (VersionConflict(9), "Other commands kept changing the same data; try again."),
    (OccurredBeforePreviousEvent(_NOW, _LATER), "occurred_at lies before the previous event."),
    STALE,
)


def describe(*refusals: Described, status: int = 200) -> dict[str, Any]:
    """The keywords of a command's route, from what its decider refuses. Status 201: it makes something new."""
    headers: dict[str, Any] = dict(HEADERS)
    if status == 201:
        headers["Location"] = LOCATION
    acknowledged = {"description": "Carried out and durable", "headers": headers}
    return {
        "status_code": status,
        "response_model": Acknowledgement,
        "responses": {status: acknowledged, **responses(*refusals, *_ANY_COMMAND)},
        "openapi_extra": {"parameters": [*COMMAND_HEADERS, IF_MATCH_NEW if status == 201 else IF_MATCH]},
    }


async def carry_out(
    request: Request, command: object, body: CommandBody | None, *, created_under: str | None = None
) -> Response:
    """The acknowledgement of the command. `created_under` is the path of what the command makes, such as `/orders`."""
    state = request.app.state
    handler: Handler = state.handler
    metadata = read_metadata(request, body, creates=created_under is not None)
    try:
        result = await handler.handle(command, metadata)
    except asyncio.CancelledError:  # by the server, when the time to finish what it accepted is over
        raise AppendOutcomeUnknown(str(metadata.command_id)) from None
    return acknowledge(result, None if created_under is None else state.query_url + created_under)


class CommandRoute(FastRoute):
    """Refuses a body that is not JSON before FastAPI takes it for text and calls it invalid, and a command that is
    throttled before anything is done for it, such as a key made to seal it with."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            _require_json(headers_of(request.scope))
            throttle: Throttle = request.app.state.throttle
            if throttle.active:
                throttle.admit()
            return await handle(request)

        return handle_json


def _require_json(headers: Mapping[bytes, bytes]) -> None:
    """Raises 415 for another media type, character set or content coding."""
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise HTTPException(415, "Send the body without Content-Encoding.", {"Accept-Encoding": "identity"})
    has_body = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
    media_type = headers.get(b"content-type", b"")
    if has_body and media_type != b"application/json":
        given, _, parameters = media_type.decode("latin-1").lower().partition(";")
        if given.strip() != "application/json":
            raise HTTPException(415, f"Send application/json, not {given.strip() or 'a body without Content-Type'}.")
        for parameter in parameters.split(";"):
            attribute, _, charset = parameter.partition("=")
            if attribute.strip() == "charset" and charset.strip(' \t"') != "utf-8":
                raise HTTPException(415, f"Send the body in UTF-8, not {charset.strip()}.")
