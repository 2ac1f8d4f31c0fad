"""The headers, cursors and parameters of queries, and their OpenAPI description."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from fastapi import Request
from starlette.responses import Response

from shared.errors import Malformed
from shared.eventstore.token import MalformedToken, TokenBeyondLog, UnknownLog
from shared.http.limits import MAX_HEADER_BYTES
from shared.http.openapi import Described
from shared.http.request_headers import header
from shared.read_models.keys import is_index_entry

MAX_WAIT_SECONDS = 30

_WAIT = re.compile(r'\s*wait\s*=\s*(?:"(\d{1,9})"|(\d{1,9}))\s*(?:;.*)?', re.ASCII | re.IGNORECASE)
# Without white space in front: `findall` would begin anew at each space of a run, in quadratic time.
_ETAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e]*")[ \t]*+(?:,|$)')
_MAX_CURSOR = 200  # characters; ours are shorter


@dataclass
class MalformedCursor(Malformed):
    code = "malformed-cursor"
    title = "The cursor cannot be read"

    @property
    def detail(self) -> str:
        return "The cursor is not one of ours; send next_cursor exactly as it was received."


def encode_cursor(entry: str) -> str:
    return base64.urlsafe_b64encode(entry.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """The index entry that the cursor names. Raises `MalformedCursor`."""
    if len(cursor) > _MAX_CURSOR:
        raise MalformedCursor
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        entry = base64.b64decode(padded, altchars="-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise MalformedCursor from None
    if not is_index_entry(entry):
        raise MalformedCursor
    return entry


def preferred_wait(prefer: str | None) -> int | None:
    """Seconds of `Prefer: wait=<seconds>`, at most 30. None where it cannot be parsed (RFC 7240)."""
    if prefer is None or len(prefer) > MAX_HEADER_BYTES:
        return None
    for preference in prefer.split(","):
        if match := _WAIT.fullmatch(preference):
            return min(MAX_WAIT_SECONDS, int(match[1] or match[2]))
    return None


def matches(if_none_match: str, etag: str) -> bool:
    """Whether the client has that version: RFC 9110's weak comparison with a list of entity tags, or `*`."""
    if len(if_none_match) > MAX_HEADER_BYTES:
        return False
    return if_none_match.strip() == "*" or etag in _ETAG.findall(if_none_match)


class OpenedDocument(NamedTuple):
    """JSON with its sealed texts opened. `erased`: some of them do not open any more, which shows under the same entity
    tag as before."""

    body: bytes
    erased: bool = False


def unless_known(
    request: Request, body: bytes, etag: str, headers: dict[str, str], *, erased: bool = False
) -> Response:
    """The JSON `body`, or 304 where the client has it already. Not of what was `erased` in part."""
    headers["ETag"] = etag
    if not erased and (known := header(request.scope, b"if-none-match")) is not None and matches(known, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def _header(name: str, description: str, example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }


# The routes read these from the request, which costs less than FastAPI's parameters.
TOKEN_HEADERS = [
    _header(
        "Consistency-Token",
        "Answer only from a read model that has reached this token of an acknowledgement or an earlier answer."
        " Of several, separated by commas, the newest counts.",
        "9f0c2a3b4d5e6f708192a3b4c5d6e7f8-1234",
    ),
    _header(
        "Prefer",
        f"`wait=<seconds>`: how long to wait for the token, at most {MAX_WAIT_SECONDS}; 2 unless set otherwise.",
        "wait=5",
    ),
]
ETAG_EXAMPLE = '"3-2-5f0c6f5e0d3c4e0fb7a1d0f8f2d0a9c4"'
IF_NONE_MATCH = _header("If-None-Match", "The ETag that the client has: 304 when it is current.", ETAG_EXAMPLE)


TOKEN_REFUSALS: tuple[Described, ...] = (
    (MalformedToken(), "The Consistency-Token is not one of ours."),
    (UnknownLog(UUID("9f0c2a3b4d5e6f708192a3b4c5d6e7f8")), "The Consistency-Token belongs to another event log."),
    (TokenBeyondLog(2_000, 1_234), "The log does not reach the Consistency-Token."),
)
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "The client has the current state already."}}


PARKED_HEADER: dict[str, Any] = {
    "Projection-Parked": {
        "description": "The document shows the events before this position of the log: the read model could not apply"
        " the event there.",
        "schema": {"type": "integer"},
    }
}
PARKED_STREAMS_HEADER: dict[str, Any] = {
    "Projection-Parked-Streams": {
        "description": "Number of streams that count as they were before an event that could not be applied.",
        "schema": {"type": "integer"},
    }
}


def answer_headers(etag_example: str | None = None) -> dict[str, Any]:
    """The OpenAPI description of the headers of a 200, without `Projection-Lag`."""
    headers: dict[str, Any] = {
        "Consistency-Token": {
            "description": "Sent with the next query, it keeps reads from going backwards.",
            "schema": {"type": "string"},
        },
        "Preference-Applied": {"description": "The wait that was granted.", "schema": {"type": "string"}},
    }
    if etag_example is not None:
        headers["ETag"] = {
            "description": "Opaque: it tells this state from every other, also of before a restore of the log or"
            " another release. Send it as If-None-Match, or as If-Match with a command.",
            "schema": {"type": "string"},
            "example": etag_example,
        }
    return headers
