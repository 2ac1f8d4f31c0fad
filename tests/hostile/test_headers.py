"""A request means one thing, to us and to each proxy before us (RFC 9110, RFC 9112)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from tests.hostile.connections import Client, connected, echo, server

JSON_BODY = b'{"a": 1}'
LENGTH = b"Content-Length: %d\r\n" % len(JSON_BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n"


async def mirror(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what the application is given."""
    if scope["type"] != "http":
        await echo(scope, receive, send)
        return
    request = Request(scope, receive)
    body = (await request.body()).decode("latin-1")
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    seen = {"method": scope["method"], "path": scope["path"], "query": scope["query_string"].decode()}
    await JSONResponse({**seen, "headers": headers, "body": body})(scope, receive, send)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with server(app=mirror) as port, connected(port) as client:
        yield client


async def seen(client: Client, sent: bytes = b"") -> dict[str, Any]:
    """What the application was given."""
    client.send(sent)
    answer = await client.answer()
    assert answer.status == 200, answer
    read: dict[str, Any] = json.loads(answer.body)
    return read


async def refused(client: Client, sent: bytes, status: int, code: str) -> dict[str, Any]:
    client.send(sent)
    answer = await client.answer()
    assert (answer.status, answer.code, answer.headers["connection"]) == (status, code, "close")
    assert await client.is_closed()
    problem: dict[str, Any] = json.loads(answer.body)
    return problem


def post(*headers: bytes, body: bytes = JSON_BODY) -> bytes:
    return b"POST /orders HTTP/1.1\r\nHost: a\r\n" + b"".join(headers) + b"\r\n" + body


class TestUpgrade:
    @pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"other"])
    @pytest.mark.promise("requests", "`Upgrade` and trailers change nothing: a body is never the next request")
    async def test_leaves_the_body_a_body(self, client: Client, protocol: bytes) -> None:
        smuggled = b"DELETE /orders HTTP/1.1\r\nHost: a\r\n\r\n"
        headers = b"Connection: Upgrade\r\nUpgrade: %b\r\nContent-Length: %d\r\n" % (protocol, len(smuggled))
        assert (await seen(client, post(headers, body=smuggled) + LAST))["body"] == smuggled.decode()
        assert (await seen(client))["path"] == "/last"

    async def test_leaves_a_chunked_body_a_body(self, client: Client) -> None:
        chunked = b'2\r\nab\r\n3\r\ncde\r\n0\r\nIf-Match: "1"\r\n\r\n'
        first = await seen(client, post(UPGRADE, CHUNKED, body=chunked) + LAST)
        assert first["body"] == "abcde"
        assert "if-match" not in dict(first["headers"])
        assert (await seen(client))["path"] == "/last"

    async def test_leaves_a_request_without_body_as_it_is(self, client: Client) -> None:
        sent = b"GET /first HTTP/1.1\r\nHost: a\r\n" + UPGRADE + b"\r\n"
        assert (await seen(client, sent + LAST))["path"] == "/first"
        assert (await seen(client))["path"] == "/last"
        assert (await seen(client, sent))["path"] == "/first"

    async def test_may_come_in_pieces(self, client: Client) -> None:
        for piece in post(UPGRADE, LENGTH):
            client.send(bytes([piece]))
            await client.writer.drain()
        assert (await seen(client))["body"] == JSON_BODY.decode()
        assert (await seen(client, post(UPGRADE, LENGTH) + LAST))["body"] == JSON_BODY.decode()
        assert (await seen(client))["path"] == "/last"

    async def test_does_not_lift_the_bound_of_a_body(self, client: Client) -> None:
        await refused(client, post(UPGRADE, b"Content-Length: 524289\r\n"), 413, "body-too-large")

    async def test_to_a_tunnel_is_refused(self, client: Client) -> None:
        await refused(client, b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501, "method-not-implemented")


SINGLE = {
    "Authorization": "Bearer a",
    "Content-Type": "application/json",
    "Content-Encoding": "identity",
    "Host": "a",
    "Idempotency-Key": "k",
    "If-Match": '"1"',
    "Last-Event-ID": "1",
    "Origin": "http://a",
    "X-Causation-ID": "c",
    "X-Correlation-ID": "c",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}


class TestAHeaderThatComesTwice:
    @pytest.mark.parametrize("name", SINGLE)
    @pytest.mark.parametrize("same", [True, False])
    @pytest.mark.promise("requests", "A header that has one value and comes twice is refused with 400")
    async def test_and_has_one_value_is_refused(self, client: Client, name: str, same: bool) -> None:
        value = SINGLE[name]
        second = f"{name.upper()}: {value if same else value + 'x'}\r\n"
        first = "" if name == "Host" else f"{name}: {value}\r\n"
        problem = await refused(client, post(first.encode(), second.encode(), LENGTH), 400, "malformed-header")
        assert problem["header"] == name
        assert problem["instance"] == "/orders"

    @pytest.mark.parametrize("name", ["If-None-Match", "Prefer", "Consistency-Token", "Accept", "X-Forwarded-For"])
    async def test_and_is_a_list_is_one_list(self, client: Client, name: str) -> None:
        given = await seen(client, post(f"{name}: a\r\n{name.lower()}: b, c\r\n".encode(), LENGTH))
        assert [value for one, value in given["headers"] if one == name.lower()] == ["a, b, c"]
        assert given["body"] == JSON_BODY.decode()


class TestTheHost:
    @pytest.mark.parametrize(
        "host", [b"a", b"a:80", b"a.b-c_d", b"127.0.0.1:8001", b"[::1]", b"[::1]:80", b" a\t ", b"a:"]
    )
    async def test_is_a_name_or_an_address(self, client: Client, host: bytes) -> None:
        client.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert (await client.answer()).status == 200

    @pytest.mark.parametrize(
        "host",
        [
            b"",
            b"Host: \r\n",
            b"Host: a b\r\n",
            b"Host: a/b\r\n",
            b"Host: a@b\r\n",
            b"Host: a,b\r\n\xff",
            b"Host: [\r\n",
        ],
    )
    async def test_is_asked_for(self, client: Client, host: bytes) -> None:
        await refused(client, b"GET / HTTP/1.1\r\n" + host + b"\r\n", 400, "malformed-request")

    async def test_is_not_needed_in_http_1_0(self, client: Client) -> None:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer()).status == 200

    async def test_may_be_in_the_target_too(self, client: Client) -> None:
        given = await seen(client, b"GET http://A:80/orders?a=b HTTP/1.1\r\nHost: a:80\r\n\r\n")
        assert (given["path"], given["query"]) == ("/orders", "a=b")
        assert (await seen(client, b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n"))["path"] == "/"

    async def test_is_the_one_in_the_target(self, client: Client) -> None:
        await refused(client, b"GET http://b/orders HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed-request")


class TestTheRequestLine:
    async def test_may_ask_about_the_server(self, client: Client) -> None:
        assert (await seen(client, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"))["path"] == "*"

    @pytest.mark.parametrize(
        "line",
        [
            b"GET / HTTP/1.1 ",
            b"GET /a b HTTP/1.1",
            b"GET /\xe9 HTTP/1.1",
            b"GET /\x00 HTTP/1.1",
            b"GET /#a HTTP/1.1",
            b"GET a HTTP/1.1",
            b"GET * HTTP/1.1",
            b"GET ftp://a/ HTTP/1.1",
            b"GET / http/1.1",
            b"GET / HTTP/1.1.1",
            b"GE T / HTTP/1.1",
            b"get / HTTP/1.1",
            b"GET / HTTP/1.1\nA: b",
        ],
    )
    async def test_of_another_form_is_refused(self, client: Client, line: bytes) -> None:
        await refused(client, line + b"\r\nHost: a\r\n\r\n", 400, "malformed-request")

    @pytest.mark.parametrize("version", [b"", b" HTTP/0.9", b" HTTP/2.0"])
    async def test_of_another_version_is_refused(self, client: Client, version: bytes) -> None:
        sent = b"GET /" + version + b"\r\nHost: a\r\n\r\n"
        await refused(client, sent, 505, "http-version-not-supported")

    @pytest.mark.parametrize(
        "path", ["/orders%2F1", "/%6detrics", "/%6Detrics", "/a/%2e%2e/b", "/a/../b", "//a", "/a%20b"]
    )
    @pytest.mark.promise("requests", "A path is matched as it was sent: `%2f` is no separator")
    async def test_has_a_path_that_is_matched_as_it_was_sent(self, client: Client, path: str) -> None:
        assert (await seen(client, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()))["path"] == path


class TestTheGrammar:
    @pytest.mark.parametrize("space", [b"", b" ", b"\t", b"  \t "])
    async def test_allows_white_space_around_a_value(self, client: Client, space: bytes) -> None:
        given = await seen(client, post(b"If-Match:" + space + b'W/"3"' + space + b"\r\n", LENGTH))
        assert dict(given["headers"])["if-match"] == 'W/"3"'

    @pytest.mark.parametrize(
        "header",
        [
            b"If-Match : a\r\n",
            b" If-Match: a\r\n",
            b"If-Match: a\r\n b\r\n",
            b"If-Match: a\n",
            b"If-Match: a\rX: b\r\n",
            b"If-Match: a\x00b\r\n",
            b"If-Match: a\x01b\r\n",
            b"If-Match: a\x7fb\r\n",
            b"If\x00Match: a\r\n",
            b"If Match: a\r\n",
            b"If-Match\xe9: a\r\n",
            b"If-Match\r\n",
            b": a\r\n",
        ],
    )
    async def test_refuses_other_headers(self, client: Client, header: bytes) -> None:
        await refused(client, post(header, LENGTH), 400, "malformed-request")

    @pytest.mark.parametrize(
        "framing",
        [
            b"Content-Length: 8\r\nContent-Length: 8\r\n",
            b"Content-Length: 8, 8\r\n",
            b"Content-Length: +8\r\n",
            b"Content-Length: -8\r\n",
            b"Content-Length: 0x8\r\n",
            b"Content-Length: 8 8\r\n",
            b"Content-Length: \r\n",
            b"Content-Length: 99999999999999999999999\r\n",
            b"Content-Length: 8\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 8\r\n",
            b"Transfer-Encoding: chunked, gzip\r\n",
            b"Transfer-Encoding: identity\r\n",
            b"Transfer-Encoding: xchunked\r\n",
        ],
    )
    async def test_refuses_a_body_of_unclear_length(self, client: Client, framing: bytes) -> None:
        client.send(post(framing))
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) in {(400, "close"), (501, "close")}
        assert await client.is_closed()

    async def test_refuses_an_unknown_transfer_coding(self, client: Client) -> None:
        sent = post(b"Transfer-Encoding: gzip, chunked\r\n", body=b"0\r\n\r\n")
        await refused(client, sent, 501, "transfer-coding-not-implemented")

    async def test_refuses_a_transfer_coding_in_http_1_0(self, client: Client) -> None:
        sent = b"POST / HTTP/1.0\r\nHost: a\r\n" + CHUNKED + b"\r\n0\r\n\r\n"
        await refused(client, sent, 400, "malformed-request")

    @pytest.mark.parametrize(
        "chunk",
        [b"x\r\n", b"-1\r\n", b"0x2\r\nab\r\n", b"2\r\nabc\r\n", b"2\nab\n", b"2 \r\nab\r\n", b"fffffffffffffffff\r\n"],
    )
    async def test_refuses_other_chunks(self, client: Client, chunk: bytes) -> None:
        await refused(client, post(CHUNKED, body=chunk + b"0\r\n\r\n"), 400, "malformed-request")


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize(
    "framing", [LENGTH + b"\r\n" + JSON_BODY, CHUNKED + b"\r\n8\r\n" + JSON_BODY + b"\r\n0\r\n\r\n"]
)
@pytest.mark.promise("requests", "A body where none is expected is refused with 400, and nothing is done")
async def test_a_body_where_none_is_expected_is_refused(client: Client, method: str, framing: bytes) -> None:
    await refused(client, f"{method} /orders HTTP/1.1\r\nHost: a\r\n".encode() + framing, 400, "unexpected-body")


@pytest.mark.parametrize("framing", [b"Content-Length: 0\r\n\r\n", CHUNKED + b"\r\n0\r\n\r\n"])
async def test_an_empty_body_is_none(client: Client, framing: bytes) -> None:
    assert (await seen(client, b"DELETE /orders HTTP/1.1\r\nHost: a\r\n" + framing))["method"] == "DELETE"
