"""What the head of a request means (RFC 9110, RFC 9112), beyond what the parser checks."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from shared.http import refusals
from shared.http.refusals import Refusal

BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})

Headers: TypeAlias = list[tuple[bytes, bytes]]  # names in lower case

_VERSIONS = ("1.1", "1.0")
# Of those with a meaning to us. A header that is a list may come in several lines, which count as one.
_SINGLE_VALUED = {
    name.lower().encode(): name
    for name in (
        "Access-Control-Request-Method",
        "Authorization",
        "Content-Encoding",
        "Content-Length",
        "Content-Type",
        "Expect",
        "Host",
        "Idempotency-Key",
        "If-Match",
        "Last-Event-ID",
        "Origin",
        "Transfer-Encoding",
        "X-Causation-ID",
        "X-Correlation-ID",
        "traceparent",
    )
}
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(/[^?]*)?(?:\?(.*))?", re.IGNORECASE | re.DOTALL)


class Head(NamedTuple):
    host: bytes | None
    has_body: bool
    expects_continue: bool


class Target(NamedTuple):
    path: str  # percent-encoded, as it was sent
    query: bytes


def read_head(method: str, version: str, headers: Headers, max_body_bytes: int) -> Head | Refusal:
    """Joins the lines of a header that is a list, in place."""
    given = dict(headers)
    if len(given) != len(headers):
        for name, single in _SINGLE_VALUED.items():
            if sum(one == name for one, _ in headers) > 1:
                return refusals.repeated_header(single)
        _join_lists(headers)
    if version not in _VERSIONS:
        return refusals.UNKNOWN_VERSION
    host = given.get(b"host")
    if (host is None and version == "1.1") or (host is not None and not _is_host(host)):
        return refusals.NO_HOST
    size = _body_size(version, given)
    if isinstance(size, Refusal):
        return size
    if size is not None and size > max_body_bytes:
        return refusals.body_too_large(max_body_bytes)
    if size and method in BODILESS:
        return refusals.UNEXPECTED_BODY
    expects_continue = version == "1.1" and given.get(b"expect", b"").lower() == b"100-continue"
    return Head(host, size != 0, expects_continue)


def _body_size(version: str, given: dict[bytes, bytes]) -> int | Refusal | None:
    """None: it comes in chunks."""
    coding = given.get(b"transfer-encoding")
    if coding is None:
        return int(given.get(b"content-length", 0))
    if version == "1.0":
        return refusals.MALFORMED
    return None if coding.strip().lower() == b"chunked" else refusals.UNKNOWN_TRANSFER_CODING


def _join_lists(headers: Headers) -> None:
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        joined[name] = joined[name] + b", " + value if name in joined else value
    headers[:] = joined.items()


@lru_cache(maxsize=64)
def _is_host(host: bytes) -> bool:
    return _HOST.fullmatch(host) is not None


def read_target(method: str, url: bytes, host: bytes | None) -> Target | Refusal:
    path: bytes | None
    if url.startswith(b"/"):
        path, _, query = url.partition(b"?")
    elif method == "CONNECT":
        return refusals.NO_TUNNEL
    elif url == b"*" and method == "OPTIONS":
        path, query = url, b""
    elif (absolute := _ABSOLUTE.fullmatch(url)) is not None:
        authority, path, query = absolute.groups(b"")
        if not _is_host(authority):
            return refusals.MALFORMED
        if host is not None and authority.lower() != host.lower():
            return refusals.OTHER_HOST
        path = path or b"/"
    else:
        return refusals.MALFORMED
    if b"#" in url or not url.isascii():
        return refusals.MALFORMED
    return Target(path.decode(), query)
