"""From request headers to a command's envelope, and from a verdict to the acknowledgement."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Annotated

import msgspec
from fastapi import Header, Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from command_service.handler import Envelope
from shared.errors import Malformed
from shared.event_store import Outcome, Verdict
from shared.events.order import order_of

_ETAG = re.compile(r'"(0|[1-9][0-9]{0,9})"')
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
# W3C trace context: version ff and ids of zeros only are invalid.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass
class MalformedHeader(Malformed):
    header: str
    expected: str
    code = "malformed-header"
    title = "A request header cannot be read"

    @property
    def detail(self) -> str:
        return f"{self.header} should be {self.expected}."


async def request_headers(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="1 to 255 visible ASCII characters. The same key and request: the first acknowledgement "
            "again. Kept 7 days unless set otherwise.",
            json_schema_extra={"pattern": f"^{_KEY.pattern}$"},  # described only: what breaks it is a 400, not a 422
            examples=["b6f1c0de-7c11-4d1d-9a0e-3f1d1f6c9a55"],
        ),
    ] = None,
    _correlation_id: Annotated[  # read in shared/edge.py; named here for the documentation
        str | None,
        Header(alias="X-Correlation-ID", description="Kept in the events' metadata and in our logs; echoed."),
    ] = None,
    traceparent: Annotated[str | None, Header(description="W3C trace context; kept in the metadata.")] = None,
) -> Headers:
    """The request headers that every command understands.

    This and `expected_version` are coroutines although they wait for nothing: FastAPI would run a plain function in a
    thread, which costs more than all the rest of a command.
    """
    if idempotency_key is not None and _KEY.fullmatch(idempotency_key) is None:
        raise MalformedHeader("Idempotency-Key", "1 to 255 visible ASCII characters")
    _require_json(request)
    # A trace header that is not one is ignored, as the W3C specification asks.
    return Headers(
        request, idempotency_key, traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None
    )


@dataclass(frozen=True, slots=True)
class Headers:
    request: Request
    key: str | None
    traceparent: str | None

    def envelope(
        self, body: BaseModel | None, occurred_at: datetime | None, expected_version: int | None = None
    ) -> Envelope:
        return Envelope(
            correlation_id=self.request.scope["correlation_id"],
            traceparent=self.traceparent,
            occurred_at=occurred_at,
            expected_version=expected_version,
            key=self.key,
            fingerprint=None if self.key is None else self._fingerprint(body),
        )

    def _fingerprint(self, body: BaseModel | None) -> bytes:
        """What makes two requests the same: method, path, condition and the meaning (not the spelling) of the body."""
        condition = self.request.headers.get("if-match", "")
        meaning = b"" if body is None else body.model_dump_json().encode()
        parts = (self.request.method, self.request.url.path, condition)
        return sha256("\n".join(parts).encode() + b"\n" + meaning).digest()


async def expected_version(
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description="The version you decided on, quoted, as in the ETag.",
            examples=['"3"'],
            json_schema_extra={"pattern": rf"^(?:\*|{_ETAG.pattern})$"},
        ),
    ] = None,
) -> int | None:
    """The version in If-Match; None where any will do."""
    if if_match is None or if_match == "*":
        return None
    match = _ETAG.fullmatch(if_match)
    if match is None:
        raise MalformedHeader("If-Match", 'one version in double quotes, such as "3"')
    return int(match[1])


def _require_json(request: Request) -> None:
    headers = request.headers
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if has_body and media_type != "application/json":
        raise HTTPException(415, f"Send application/json, not {media_type or 'a body without Content-Type'}.")


_encode = msgspec.json.Encoder().encode


def acknowledge(verdict: Verdict, *, created: bool = False) -> Response:
    aggregate_id = order_of(verdict.stream_id)
    token = verdict.token.encode()
    headers = {"ETag": f'"{verdict.version}"', "Consistency-Token": token}
    if created:
        headers["Location"] = f"/orders/{aggregate_id}"
    if verdict.outcome is Outcome.REPLAYED:
        headers["Idempotent-Replayed"] = "true"
    body = {
        "command_id": verdict.command_id,
        "aggregate_id": aggregate_id,
        "version": verdict.version,
        "position": verdict.position,
        "consistency_token": token,
    }
    return Response(_encode(body), 201 if created else 200, headers, media_type="application/json")
