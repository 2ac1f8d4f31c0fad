"""What the routes of all commands have in common: how they are described, read, carried out and acknowledged."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from command_service.api.acknowledgement import HEADERS, LOCATION, Acknowledgement, acknowledge
from command_service.api.bodies import CommandBody
from command_service.api.metadata import COMMAND_HEADERS, IF_MATCH, IF_MATCH_NEW, read_metadata
from command_service.group_commit import AppendOutcomeUnknown
from command_service.handler import Handler
from shared.http.fast_route import FastRoute
from shared.http.problems import UNREADABLE, responses

_CHARSET = re.compile(r';?[ \t]*charset="?([^";]*)')

_ANY_COMMAND = (
    (400, "malformed-json", "The body is not JSON."),
    (400, "malformed-header", "A header cannot be read."),
    (413, "body-too-large", "The body is larger than 512 KiB."),
    (415, "unsupported-media-type", "The body is not application/json."),
    (422, "invalid-request", "A value is missing, unknown or out of bounds; `errors` points at it."),
    (422, "idempotency-key-reused", "The Idempotency-Key came with another request before."),
    (422, "occurred-in-the-future", "occurred_at is more than a minute ahead of us."),
    (503, "overloaded", "Too many commands are waiting; nothing was done."),
    (503, "log-unavailable", "The event log cannot be reached; nothing was done."),
    (503, "throttled", "A read model is more than 30 s behind, so only a share is admitted; nothing was done."),
    (503, "shutting-down", "The process is stopping; nothing was done."),
    (504, "outcome-unknown", "The log, or this process, was lost on the way. Repeat with the same Idempotency-Key."),
    *UNREADABLE,
)
STALE = (412, "stale-version", "If-Match names another version than the current one.")
ANY_CHANGE = (
    (409, "version-conflict", "Other commands kept changing the same data; try again."),
    (409, "occurred-before-previous-event", "occurred_at lies before the previous event."),
    STALE,
)


def describe(*refusals: tuple[int, str, str], status: int = 200) -> dict[str, Any]:
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
    if state.throttle.active:
        state.throttle.admit()
    handler: Handler = state.handler
    metadata = read_metadata(request, body, creates=created_under is not None)
    try:
        result = await handler.handle(command, metadata)
    except asyncio.CancelledError:  # by the server, when the time to finish what it accepted is over
        raise AppendOutcomeUnknown(str(metadata.command_id)) from None
    return acknowledge(result, created_under)


class CommandRoute(FastRoute):
    """Refuses a body that is not JSON before FastAPI takes it for text and calls it invalid."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            _require_json(request.scope["headers"])
            return await handle(request)

        return handle_json


def _require_json(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises 415 for another media type, character set or content coding."""
    has_body, media_type = False, b""
    for name, value in headers:
        if name == b"content-type":
            media_type = value
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise HTTPException(415, "Send the body without Content-Encoding.", {"Accept-Encoding": "identity"})
        elif name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            has_body = True
    if has_body and media_type != b"application/json":
        given, _, parameters = media_type.decode("latin-1").lower().partition(";")
        if given.strip() != "application/json":
            raise HTTPException(415, f"Send application/json, not {given.strip() or 'a body without Content-Type'}.")
        if (charset := _CHARSET.search(parameters)) is not None and charset[1] != "utf-8":
            raise HTTPException(415, f"Send the body in UTF-8, not {charset[1]}.")
