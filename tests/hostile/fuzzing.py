"""Requests of what clients send and of what they should not: strategies for hypothesis, and a client for the bytes."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import quote

from hypothesis import strategies as st

from tests.documented import read_document
from tests.orders import order_body

HANG_SECONDS = 0.5
UNFINISHED_SECONDS = 0.05  # how long an answer is awaited that need not come
ORDER, CUSTOMER = "fuzzed", "alice"  # an order that is there, as are an account and stock of its id, and its customer


class Answer(NamedTuple):
    status: int  # 0: the connection was closed without an answer
    seconds: float  # until the first byte of the answer, or the end
    head: bytes


class Sent(NamedTuple):
    """What a client writes to its connection. `whole`: it is a request whose end can be told."""

    data: bytes
    whole: bool


def exchange(port: int, sent: Sent) -> Answer | None:
    """The answer to the bytes, its head at least; None where none comes in time."""
    began = monotonic()
    received = b""
    patience = HANG_SECONDS if sent.whole else UNFINISHED_SECONDS
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        try:
            connection.sendall(sent.data)
            while b"\r\n\r\n" not in received and (part := connection.recv(65_536)):
                received += part
        except TimeoutError:
            return None
        except ConnectionError:
            with suppress(OSError):
                received += connection.recv(65_536)
    status = int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/1.1 ") else 0
    return Answer(status, monotonic() - began, received.partition(b"\r\n\r\n")[0])


# --- values ----------------------------------------------------------------------------------------------------------

_ODD = [
    "", " ", "\t", "\x00", "\r", "'", '"', '""', "\\", "%", "%2f", "%2e%2e", "%00", "%ff", "..", "*", "W/", "W/\"1\"",
    "null", "nan", "inf", "-0", "-1", "0", "1", "1e309", "9" * 400, str(2**31), str(2**53), str(2**63 - 1), str(2**63),
    "0x10", "٣", "é", "\u202e", "😀", "\ufffd", "a" * 65, "a" * 8_000, " " * 7_000, "[" * 2_000, "{" * 2_000,
    "2026-01-31T14:30:00Z", "2026-01-31", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+14:00", "2026-02-30",
]  # fmt: skip
_VISIBLE = frozenset(map(chr, range(0x20, 0x7F)))
_characters = st.characters(min_codepoint=0, max_codepoint=0x2FFF)
anything = st.sampled_from(_ODD) | st.text(_characters, max_size=40)

_numbers = st.integers().map(str) | anything
_log_ids = st.text("0123456789abcdef", min_size=30, max_size=34)
tokens = st.builds(lambda log_id, position: f"{log_id}-{position}", _log_ids, anything)
index_entries = st.builds(lambda at, of: f"{at}{of}", st.text("0123456789abcdef", min_size=14, max_size=16), anything)
etags = st.builds(lambda before, inside, after: f'{before}"{inside}"{after}', anything, anything, anything)
times = st.datetimes().map(lambda time: time.isoformat() + "Z") | anything
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | anything,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(anything, inner, max_size=4),
    max_leaves=12,
)
cursors = st.builds(
    lambda value: base64.urlsafe_b64encode(value.encode("utf-8", "surrogatepass")).decode().rstrip("="),
    index_entries | json_values.map(json.dumps),
)


class Known(NamedTuple):
    """What a client of the service knows that is true."""

    log_id: str = "0" * 32
    position: int = 0  # of an event that is there
    bearers: Sequence[str] = ()  # tokens that the service accepts; none: it asks for none

    @property
    def positions(self) -> st.SearchStrategy[str]:
        """Such as the log has, beside those that it has not yet."""
        return st.integers(-1, self.position + 3).map(str) | _numbers

    @property
    def headers(self) -> dict[str, st.SearchStrategy[str]]:
        token = self.positions.map(lambda position: f"{self.log_id}-{position}")
        bearer = mutated(st.sampled_from(self.bearers or ["a.b.c"]))
        return {
            **_HEADERS,
            "Consistency-Token": token | mutated(token) | tokens,
            "Last-Event-ID": self.positions,
            "Authorization": (bearer | odd_bearers(self.bearers)).map(lambda one: f"Bearer {one}") | anything,
        }

    @property
    def authorization(self) -> st.SearchStrategy[str]:
        return st.sampled_from(self.bearers).map(lambda one: f"Bearer {one}")


def _segment(value: str) -> str:
    return base64.urlsafe_b64encode(value.encode("utf-8", "surrogatepass")).decode().rstrip("=")


@st.composite
def odd_bearers(draw: st.DrawFn, real: Sequence[str]) -> str:
    """A token with another head or other claims than were signed."""
    parts = draw(st.sampled_from(real or ["a.b.c"])).split(".")
    head = {
        "alg": draw(st.sampled_from(["ES256", "HS256", "none", "RS256"]) | json_values),
        "kid": draw(st.sampled_from(["first"]) | json_values),
        "typ": draw(st.just("JWT") | json_values),
        draw(st.sampled_from(["crit", "b64", "jwk", "x5u", "zip", "enc"])): draw(json_values),
    }
    encoded = draw(st.sampled_from([json.dumps(head), "[" * 4_000, "9" * 5_000]) | anything)
    claims = draw(st.just(parts[1]) | json_values.map(json.dumps).map(_segment))
    return ".".join([draw(st.sampled_from([parts[0], _segment(encoded)])), claims, *parts[2:]])


@st.composite
def mutated(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    """A plausible value with a piece of another in it."""
    value = draw(values)
    at = draw(st.integers(0, len(value)))
    return value[:at] + draw(anything) + value[at + draw(st.integers(0, 3)) :]


_HEADERS: dict[str, st.SearchStrategy[str]] = {
    "If-Match": etags | anything,
    "If-None-Match": etags | mutated(st.just('"a", W/"b"')),
    "Prefer": mutated(st.just("wait=0")),
    "Idempotency-Key": anything,
    "X-Correlation-ID": anything,
    "X-Causation-ID": anything,
    "traceparent": mutated(st.just("00-" + "a" * 32 + "-" + "b" * 16 + "-01")),
    "Content-Type": mutated(st.just("application/json; charset=utf-8")),
    "Content-Encoding": st.sampled_from(["gzip", "identity", "br", ""]),
    "Accept": mutated(st.just("text/event-stream, */*;q=0.1")),
    "Expect": st.sampled_from(["100-continue", "nothing"]),
    "Connection": st.sampled_from(["close", "keep-alive", "Upgrade", "x, y"]),
    "Upgrade": st.sampled_from(["websocket", "h2c", "TLS/1.0"]),
    "Forwarded": mutated(st.just("for=192.0.2.1")),
    "X-Forwarded-For": mutated(st.just("192.0.2.1, 10.0.0.1")),
    "Origin": mutated(st.just("http://localhost:1")),
    "Range": mutated(st.just("bytes=0-1,2-3")),
    "If-Range": etags | anything,
}
_PARAMETERS: dict[str, st.SearchStrategy[str]] = {
    "cursor": cursors | mutated(cursors),
    "limit": _numbers,
    "category": st.sampled_from(["Home", "Home/Lighting", "/"]) | anything,
    "tag": st.sampled_from(["white", ","]) | anything,
    "status": st.sampled_from(["PENDING", "pending", "x"]) | anything,
    "as_of": times,
    "known_at": times,
    "from": times,
    "to": times,
    "currency": st.sampled_from(["GBP", "gbp"]) | anything,
    "after": _numbers,
    "after_version": _numbers,
    "include": st.sampled_from(["customer", "customer,products"]) | anything,
    "ids": st.lists(_numbers | st.just(ORDER), max_size=4).map(",".join),
}
_ids = st.sampled_from([ORDER, CUSTOMER, "1"]) | anything.map(lambda text: quote(text, safe="%"))


class Route(NamedTuple):
    method: str
    path: str  # with {} in the place of an id
    parameters: Sequence[str] = ()
    example: Mapping[str, Any] | None = None  # of its body
    fields: Sequence[str] = ()  # that a body may have


def documented(service: str) -> list[Route]:
    """Every operation of the service's OpenAPI document."""
    document = read_document(service)
    return [
        _route(method.upper(), path, operation, document["components"]["schemas"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


def _route(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Route:
    parameters = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
    path = re.sub(r"\{\w+\}", "{}", path)
    if "requestBody" not in operation:
        return Route(method, path, parameters)
    content = operation["requestBody"]["content"]["application/json"]
    references = re.findall("#/components/schemas/(\\w+)", json.dumps(content["schema"]))
    fields = sorted({field for name in references for field in schemas[name].get("properties", ())})
    return Route(method, path, parameters, content["example"], fields)


ROUTES = {
    "query": [*documented("query"), *(Route("GET", path) for path in ("/openapi.json", "*", "//"))],
    "command": [
        *documented("command"),
        Route("GET", "/docs/swagger/{}"),
        *(Route("GET", path) for path in ("/docs", "/docs/swagger/favicon.png", "/docs/errors.md")),
    ],
}
_METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"]


_RICH_ORDER = order_body(charges=[{"kind": "discount", "amount": -1}], metadata={"a": "b"}, note="n")


@st.composite
def bodies(draw: st.DrawFn, route: Route) -> bytes:
    """A valid body, with a value replaced, or cut, or of other bytes."""
    kind = draw(st.sampled_from(["valid", "replaced", "replaced", "json", "cut", "bytes", "empty"]))
    if kind == "empty":
        return b""
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "json":
        return _encoded(draw(json_values))
    own = [route.example] if route.example else []
    body: dict[str, Any] = json.loads(json.dumps(draw(st.sampled_from([*own * 3, _RICH_ORDER]))))
    if kind == "replaced":
        inner = [one for value in body.values() if isinstance(value, list) for one in value if isinstance(one, dict)]
        place = draw(st.sampled_from([body, *inner]))
        place[draw(st.sampled_from(sorted({*place, *route.fields})) | anything)] = draw(json_values)
    encoded = _encoded(body)
    return encoded[: draw(st.integers(0, len(encoded)))] if kind == "cut" else encoded


def _encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


@st.composite
def requests(draw: st.DrawFn, service: str, known: Known) -> Sent:
    """A request of well-formed HTTP, mostly of one of the service's routes, with values of all kinds."""
    route = draw(st.sampled_from(ROUTES[service]))
    is_odd = draw(st.integers(0, 3)) == 0  # has a method, parameters and characters that the route does not know
    method = draw(st.sampled_from(_METHODS)) if is_odd else route.method
    values = {**_PARAMETERS, "after": known.positions}
    names = sorted(values) if is_odd else route.parameters
    parameters = draw(st.lists(st.sampled_from(names), max_size=3, unique=not is_odd)) if names else []
    query = "&".join(f"{name}={quote(draw(values.get(name, anything)), safe='%')}" for name in parameters)
    strategies = known.headers
    names = draw(st.lists(st.sampled_from(sorted(strategies)), max_size=4, unique=not is_odd))
    headers = [(name, draw(strategies[name])) for name in names]
    if known.bearers and "Authorization" not in names and draw(st.integers(0, 9)):
        headers.append(("Authorization", draw(known.authorization)))
    if not is_odd:
        headers = [(name, "".join(filter(_VISIBLE.__contains__, value))) for name, value in headers]
    path = route.path.format(*(draw(_ids) for _ in range(route.path.count("{}"))))
    body = draw(bodies(route)) if service == "command" else b""
    lines = [f"{method} {path}{'?' if query else ''}{query} HTTP/1.1", "Host: a"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body or is_odd:
        lines.append(f"Content-Length: {len(body)}")
        if "Content-Type" not in names:
            lines.append("Content-Type: application/json")
    head = "\r\n".join(lines).encode("utf-8", "surrogatepass")
    # Some of the values end the request.
    may_wait = b"\r\n\r\n" in head or {"Expect", "Upgrade"} & set(names)
    return Sent(head + b"\r\n\r\n" + body, whole=not may_wait)


@st.composite
def broken(draw: st.DrawFn, service: str, known: Known) -> Sent:
    """A request with bytes taken out, put in or doubled: often no HTTP at all."""
    data = bytearray(draw(requests(service, known)).data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return Sent(bytes(data), whole=False)
