"""What is too large is refused as soon as its bound is passed, with a problem document."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.hostile.connections import Client, connected, limited, server

KIB = 1024
HOST = b"Host: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with server() as port:
        yield port


@pytest.fixture
async def client(port: int) -> AsyncIterator[Client]:
    async with connected(port) as client:
        yield client


async def refused(client: Client, sent: bytes, status: int, code: str) -> None:
    client.send(sent)
    answer = await client.answer()
    assert (answer.status, answer.code, answer.headers["connection"]) == (status, code, "close")
    assert await client.is_closed()


def request_line(size: int) -> bytes:
    rest = len(b"GET / HTTP/1.1")
    return b"GET /" + b"a" * (size - rest) + b" HTTP/1.1\r\n"


def header(size: int, name: bytes = b"X-A") -> bytes:
    return name + b": " + b"a" * (size - len(name) - len(b":\r\n")) + b"\r\n"


class TestRequestLine:
    async def test_of_8_kib_is_read(self, client: Client) -> None:
        client.send(request_line(8 * KIB) + b"Host: a\r\n\r\n")
        assert (await client.answer()).status == 200

    async def test_beyond_8_kib_is_refused(self, client: Client) -> None:
        await refused(client, request_line(8 * KIB + 1) + b"Host: a\r\n\r\n", 414, "uri-too-long")

    @pytest.mark.bound("all", "request line; one header")
    async def test_that_does_not_end_is_refused(self, client: Client) -> None:
        await refused(client, b"GET /" + b"a" * (100 * KIB), 414, "uri-too-long")


class TestHeaders:
    @pytest.mark.parametrize(
        "headers",
        [header(8 * KIB), header(8 * KIB) + header(8 * KIB - len(HOST), b"X-B"), b"A: b\r\n" * 99],
        ids=["one", "all", "lines"],
    )
    async def test_within_their_bounds_are_read(self, client: Client, headers: bytes) -> None:
        client.send(b"GET / HTTP/1.1\r\n" + HOST + headers + b"\r\n")
        assert (await client.answer()).status == 200

    @pytest.mark.parametrize(
        "headers",
        [header(8 * KIB + 1), header(8 * KIB) + header(8 * KIB, b"X-B") + b"A: b\r\n", b"A: b\r\n" * 101],
        ids=["one", "all", "lines"],
    )
    @pytest.mark.bound("all", "headers and trailers of a request")
    async def test_beyond_their_bounds_are_refused(self, client: Client, headers: bytes) -> None:
        await refused(client, b"GET / HTTP/1.1\r\n" + headers + b"\r\n", 431, "headers-too-large")

    @pytest.mark.parametrize("unit", [b"a", b"A: b\r\n"], ids=["value", "lines"])
    async def test_that_do_not_end_are_refused(self, client: Client, unit: bytes) -> None:
        endless = unit * (100 * KIB // len(unit))
        await refused(client, b"GET / HTTP/1.1\r\nX-A: a" + endless, 431, "headers-too-large")

    async def test_of_the_second_request_of_a_connection_are_refused_too(self, client: Client) -> None:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer()).status == 200
        await refused(client, b"GET / HTTP/1.1\r\n" + header(20 * KIB), 431, "headers-too-large")

    @pytest.mark.parametrize("part", [b"1;a=", b"0\r\nX-A: "], ids=["chunk extension", "trailer"])
    async def test_cannot_hide_in_a_body(self, client: Client, part: bytes) -> None:
        await refused(client, CHUNKED + part + b"a" * (100 * KIB), 431, "headers-too-large")

    async def test_in_a_trailer_do_not_count(self, client: Client) -> None:
        client.send(CHUNKED + b'2\r\nab\r\n0\r\nIf-Match: "1"\r\n\r\n')
        assert (await client.answer()).body == b"2 2"


async def test_what_is_not_http_is_answered_with_a_problem(client: Client) -> None:
    await refused(client, b"\x16\x03\x01\r\n\r\n", 400, "malformed-request")


async def test_megabytes_of_body_in_one_piece_are_read() -> None:
    size = 3_000_000
    async with server(limited(max_body_bytes=size)) as port, connected(port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)
        assert (await client.answer()).body == b"%d 2" % size


async def test_small_requests_sent_ahead_are_all_answered(client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 1_000)
    for _ in range(1_000):
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("path", ["/orders", "/orders/no-such/delivery", "/metrics"])
@pytest.mark.bound("all", "request body")
async def test_a_body_beyond_its_bound_is_refused_by_its_length_alone(commands: httpx.AsyncClient, path: str) -> None:
    async with connected(commands.base_url.port or 0) as client:
        client.send(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 524289\r\n\r\n".encode())
        answer = await client.answer()
        assert (answer.status, answer.code) == (413, "body-too-large")
