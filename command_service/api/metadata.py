"""From request headers to a command's metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import unquote

from fastapi import Request

from command_service.api.bodies import CommandBody
from command_service.decision import CommandMetadata
from shared.errors import Malformed, Stale
from shared.http.etags import IF_MATCH_PATTERN, ExpectedVersion, parse_if_match
from shared.http.request_headers import header
from shared.identity.access import caller_of, limited_to_owner
from shared.identity.caller import Caller

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_CAUSE = re.compile(r"[\x21-\x7e]{1,128}")  # as long as a correlation id may be
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


@dataclass
class NothingToMatch(Stale):
    code = "stale-version"
    title = "There is nothing to match"

    @property
    def detail(self) -> str:
        return 'If-Match: * asks for what exists; this command makes something new. Send "0" or leave it out.'


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    schema = {"type": "string", **schema}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


# Read straight from the request, which costs a tenth of what FastAPI's parameters do; documented here.
COMMAND_HEADERS = [
    _header(
        "Idempotency-Key",
        "1 to 255 visible ASCII characters, less double quotes around them. The same key and request: the first"
        " acknowledgement again. Kept 7 days unless set otherwise. A key belongs to its caller; with AUTH=off all"
        " clients share the keys: make them random, such as a UUID.",
        pattern=f"^{_KEY.pattern}$",
        examples=["b6f1c0de-7c11-4d1d-9a0e-3f1d1f6c9a55"],
    ),
    _header("X-Correlation-ID", "Kept in the events' metadata and in our logs; echoed.", examples=["checkout-42"]),
    _header(
        "X-Causation-ID",
        "What led to this command, such as the id of the event it answers: 1 to 128 visible ASCII characters, kept in"
        " the events' metadata. Without it, the command's own id.",
        pattern=f"^{_CAUSE.pattern}$",
        examples=["01977f6e-5c3a-7d21-9f0b-2f6f0c1f7a55"],
    ),
    _header(
        "traceparent",
        "W3C trace context; kept in the metadata.",
        examples=["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
    ),
]
IF_MATCH = _header(
    "If-Match",
    "What you decided on: the ETag of a query's answer, or a version in double quotes as in the ETag of a command's."
    " A version in quotes is one of the log as it is now; after the log was restored it may be another past's. The ETag"
    " of a query is refused then.",
    pattern=rf"^(?:\*|{IF_MATCH_PATTERN})$",
    examples=['"3"'],
)
IF_MATCH_NEW = _header(
    "If-Match",
    'What does not exist yet is at version 0, so only `"0"` can match: the command is refused where it exists.',
    pattern=f"^{IF_MATCH_PATTERN}$",
    examples=['"0"'],
)


def read_metadata(request: Request, body: CommandBody | None, *, creates: bool = False) -> CommandMetadata:
    """From the headers and the body's `occurred_at`. Raises `MalformedHeader`, and `NothingToMatch` where the command
    `creates` what it names."""
    scope = request.scope
    given_key, if_match = header(scope, b"idempotency-key"), header(scope, b"if-match")
    cause, traceparent = header(scope, b"x-causation-id"), header(scope, b"traceparent")
    key = None if given_key is None else _idempotency_key(given_key)
    if cause is not None and _CAUSE.fullmatch(cause) is None:
        raise MalformedHeader("X-Causation-ID", "1 to 128 visible ASCII characters")
    if creates and if_match == "*":
        raise NothingToMatch
    if traceparent is not None and _TRACEPARENT.fullmatch(traceparent) is None:
        traceparent = None  # ignored, as the W3C specification asks
    expected = _expected(if_match)
    caller = caller_of(scope)
    return CommandMetadata(
        correlation_id=scope["correlation_id"],
        causation_id=cause,
        traceparent=traceparent,
        occurred_at=None if body is None else body.occurred_at,
        expected_version=expected.version if expected else None,
        expected_log_id=expected.log_id if expected else None,
        idempotency_key=None if key is None else _of_caller(key, caller),
        fingerprint=None if key is None else _fingerprint(request, body, (if_match or "").removeprefix("W/")),
        caller=caller,
        limited_to_owner=limited_to_owner(scope),
    )


def _idempotency_key(given: str) -> str:
    """The key, without double quotes around it."""
    key = given[1:-1] if len(given) > 2 and given[0] == given[-1] == '"' else given
    if _KEY.fullmatch(key) is None:
        raise MalformedHeader("Idempotency-Key", "1 to 255 visible ASCII characters")
    return key


def _of_caller(key: str, caller: Caller | None) -> str:
    """The key as it is stored: two callers may use one key. While authentication is off, all share theirs."""
    return key if caller is None else sha256(f"{caller.subject}\n{key}".encode()).hexdigest()


def _expected(if_match: str | None) -> ExpectedVersion | None:
    """What If-Match asks for; None where any version will do."""
    if if_match is None or if_match == "*":
        return None
    if (expected := parse_if_match(if_match)) is None:
        raise MalformedHeader("If-Match", 'the ETag of an answer, or one version in double quotes, such as "3"')
    return expected


def _fingerprint(request: Request, body: CommandBody | None, condition: str) -> bytes:
    """What makes two requests the same: method, path, condition and the meaning (not the spelling) of the body."""
    meaning = b"" if body is None else body.model_dump_json().encode()
    parts = (request.method, unquote(request.scope["path"]), condition)
    return sha256("\n".join(parts).encode() + b"\n" + meaning).digest()
