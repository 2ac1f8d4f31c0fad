"""What the head of a request means (RFC 9110, RFC 9112), beyond what the parser checks."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypeAlias

from shared.http import refusals
from shared.http.refusals import Refusal

BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})

Headers: TypeAlias = list[tuple[bytes, bytes]]  # names in lower case

_VERSIONS = ("1.1", "1.0")
_SLASH = ord("/")
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


Head: TypeAlias = tuple[bytes | None, bool, bool]  # the host; whether a body follows; whether it waits for 100 Continue
Target: TypeAlias = tuple[bytes, bytes]  # path, percent-encoded as it was sent; query string


def read_head(method: str, version: str, headers: Headers, max_body_bytes: int) -> Head | Refusal:
    """Joins the lines of a header that is a list, in place."""
    given = dict(headers)
    if len(given) != len(headers):
        if (refusal := _refuse_repeated(headers)) is not None:
            return refusal
        _join_lists(headers)
    is_chunked = b"transfer-encoding" in given
    if (is_chunked or version != "1.1") and (refusal := _refuse_framing(version, given)) is not None:
        return refusal
    host = given.get(b"host")
    if not (version == "1.0" if host is None else _is_host(host)):
        return refusals.NO_HOST
    size = int(given.get(b"content-length", 0))
    if size:
        if size > max_body_bytes:
            return refusals.body_too_large(max_body_bytes)
        if method in BODILESS:
            return refusals.UNEXPECTED_BODY
    expects_continue = b"expect" in given and version == "1.1" and given[b"expect"].lower() == b"100-continue"
    return host, size > 0 or is_chunked, expects_continue


def _refuse_repeated(headers: Headers) -> Refusal | None:
    for name, single in _SINGLE_VALUED.items():
        if sum(one == name for one, _ in headers) > 1:
            return refusals.repeated_header(single)
    return None


def _refuse_framing(version: str, given: dict[bytes, bytes]) -> Refusal | None:
    if version not in _VERSIONS:
        return refusals.UNKNOWN_VERSION
    coding = given.get(b"transfer-encoding")
    if coding is None:
        return None
    if version == "1.0":
        return refusals.MALFORMED
    return None if coding.lower() == b"chunked" else refusals.UNKNOWN_TRANSFER_CODING


def _join_lists(headers: Headers) -> None:
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        joined[name] = joined[name] + b", " + value if name in joined else value
    headers[:] = joined.items()


@lru_cache(maxsize=64)
def _is_host(host: bytes) -> bool:
    return _HOST.fullmatch(host) is not None


def read_target(method: str, url: bytes, host: bytes | None) -> Target | Refusal:
    if b"#" in url or not url.isascii():
        return refusals.MALFORMED
    if url[0] == _SLASH:
        path, _, query = url.partition(b"?")
        return path, query
    if method == "CONNECT":
        return refusals.NO_TUNNEL
    if url == b"*" and method == "OPTIONS":
        return url, b""
    absolute = _ABSOLUTE.fullmatch(url)
    if absolute is None or not _is_host(absolute[1]):
        return refusals.MALFORMED
    if host is not None and absolute[1].lower() != host.lower():
        return refusals.OTHER_HOST
    return absolute[2] or b"/", absolute[3] or b""
