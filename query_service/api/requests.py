"""What queries may say: headers, cursors, and nothing that we would silently ignore."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Path, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from shared.errors import Malformed
from shared.http.fields import Id
from shared.read_models.keys import is_place

OrderId = Annotated[Id, Path(description="as given or made when the order was placed", examples=["536365"])]

LONGEST_WAIT_SECONDS = 30

_WAIT = re.compile(r'\s*wait\s*=\s*(?:"(\d{1,9})"|(\d{1,9}))\s*(?:;.*)?', re.ASCII | re.IGNORECASE)
_ETAG = re.compile(r'\s*(?:W/)?("[\x21\x23-\x7e]*")\s*(?:,|$)')


@dataclass
class MalformedCursor(Malformed):
    code = "malformed-cursor"
    title = "The cursor cannot be read"

    @property
    def detail(self) -> str:
        return "The cursor is not one of ours; send next_cursor exactly as it was received."


def encode_cursor(place: str) -> str:
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """The place that the cursor names. Raises `MalformedCursor`."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        place = base64.b64decode(padded, altchars="-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise MalformedCursor from None
    if not is_place(place):
        raise MalformedCursor
    return place


def preferred_wait(prefer: str | None) -> int | None:
    """Seconds of `Prefer: wait=<seconds>`, at most 30. What is not understood counts as absent (RFC 7240): None."""
    if prefer is None:
        return None
    for preference in prefer.split(","):
        if match := _WAIT.fullmatch(preference):
            return min(LONGEST_WAIT_SECONDS, int(match[1] or match[2]))
    return None


def matches(if_none_match: str, etag: str) -> bool:
    """Whether the client already has it: RFC 9110's weak comparison with a list of entity tags, or `*`."""
    return if_none_match.strip() == "*" or etag in _ETAG.findall(if_none_match)


def unless_known(request: Request, body: bytes, etag: str, headers: dict[str, str]) -> Response:
    """The JSON `body`, or 304 where the client has that state already."""
    headers["ETag"] = etag
    if (known := request.headers.get("if-none-match")) is not None and matches(known, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def refuse_query(request: Request) -> None:
    """Raises 422 for any query parameter: one that is ignored would be a promise not kept."""
    if request.scope["query_string"]:
        unknown = [
            {"type": "extra_forbidden", "loc": ("query", name), "msg": "Extra inputs are not permitted", "input": value}
            for name, value in request.query_params.multi_items()
        ]
        if unknown:
            raise RequestValidationError(unknown)


def _header(name: str, description: str, example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }


# Read straight from the request, where that costs less than FastAPI's parameters; documented here.
TOKEN_HEADERS = [
    _header(
        "Consistency-Token",
        "Answer only from a read model that has reached this token, from a command's acknowledgement or an earlier"
        " answer.",
        "9f0c2a3b4d5e6f708192a3b4c5d6e7f8-1234",
    ),
    _header(
        "Prefer",
        f"`wait=<seconds>`: how long to wait for the token, at most {LONGEST_WAIT_SECONDS}; 2 unless set otherwise.",
        "wait=5",
    ),
]
IF_NONE_MATCH = _header("If-None-Match", "The ETag that the client has: 304 when it is still the current one.", '"3"')


NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "The client has the current state already."}}


PARKED_HEADER: dict[str, Any] = {
    "Projection-Parked": {
        "description": "The order is only shown up to this position of the log, without it: the read model could not"
        " apply the event there.",
        "schema": {"type": "integer"},
    }
}
PARKED_STREAMS_HEADER: dict[str, Any] = {
    "Projection-Parked-Streams": {
        "description": "So many orders count as they were before an event that the read model could not apply.",
        "schema": {"type": "integer"},
    }
}


def answer_headers(etag_example: str | None = None) -> dict[str, Any]:
    """How OpenAPI describes the headers of a 200, but for the stamp."""
    headers: dict[str, Any] = {
        "Consistency-Token": {
            "description": "Handed back with the next query, reads never go backwards.",
            "schema": {"type": "string"},
        },
        "Preference-Applied": {"description": "The wait that was granted.", "schema": {"type": "string"}},
    }
    if etag_example is not None:
        headers["ETag"] = {"schema": {"type": "string"}, "example": etag_example}
    return headers
