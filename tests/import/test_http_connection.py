"""What the importer's connection makes of servers that behave, and of those that do not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cli.importer import http_connection
from cli.importer.http_connection import Answer, Connection, Target
from tests.running import eventually

CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def talking(talk: Conversation, tls: ssl.SSLContext | None = None, url: str = "") -> AsyncIterator[Connection]:
    """A connection to a server that says what the test has it say; then it hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except asyncio.IncompleteReadError:  # the client has gone
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    connection = Connection(Target(httpx.URL(url.format(port=port) or f"http://127.0.0.1:{port}/orders")))
    try:
        yield connection
    finally:
        connection.close()
        server.close()
        await server.wait_closed()


async def one_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    [length] = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return head + await reader.readexactly(int(length.partition(b":")[2]))


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        (CREATED, Answer(201, "Created", "", b"{}")),
        (b"HTTP/1.1 503 Busy\r\nRETRY-AFTER: 2\r\nContent-Length: 0\r\n\r\n", Answer(503, "Busy", "2", b"")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            Answer(200, "OK", "", b"abc"),
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + CREATED, Answer(201, "Created", "", b"{}")),
    ],
)
async def test_an_answer_is_understood_however_it_is_cut_into_pieces(said: bytes, understood: Answer) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one_request(reader)
        for byte in said:
            writer.write(bytes([byte]))
            await writer.drain()
        await one_request(reader)
        writer.write(said)
        await writer.drain()

    async with talking(talk) as connection:
        assert await connection.post(b"{}") == understood
        assert await connection.post(b"{}") == understood


async def test_a_request_carries_what_the_address_says() -> None:
    asked = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await one_request(reader))
        writer.write(CREATED)

    async with talking(talk, url="http://who:s%20crt@127.0.0.1:{port}/shop/orders") as connection:
        await connection.post(b'{"a":1}')
    head, _, body = asked[0].partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    assert first == b"POST /shop/orders HTTP/1.1"
    assert {b"Content-Type: application/json", b"Content-Length: 7", b"Authorization: Basic d2hvOnMgY3J0"} < set(
        headers
    )
    assert [header.partition(b":")[0] for header in headers].count(b"Host") == 1
    assert body == b'{"a":1}'


@pytest.mark.parametrize("announced", [True, False])
async def test_a_connection_that_was_closed_between_two_requests_is_opened_anew(announced: bool) -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await one_request(reader)
        writer.write(CREATED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") if announced else CREATED)

    async with talking(talk) as connection:
        for _ in range(3):
            assert (await connection.post(b"{}")).status == 201
            if not announced:  # the end of the connection comes when it comes
                await eventually(lambda: is_closed(connection))
    assert connections == 3


def is_closed(connection: Connection) -> bool:
    return connection._wire is None or connection._wire.is_closing


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"", "lost before the answer was complete"),
        (CREATED[:-1], "lost before the answer was complete"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not one in HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", "not one in HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2**21, "longer than 1,048,576 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 2**21, "longer than 1,048,576 bytes"),
    ],
)
async def test_what_is_no_answer_is_an_error_and_the_next_request_gets_its_own_answer(
    said: bytes, complaint: str
) -> None:
    conversations = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal conversations
        conversations += 1
        await one_request(reader)
        writer.write(said if conversations == 1 else CREATED)
        if conversations == 1 and said:
            await writer.drain()
            await reader.read(0)

    async with talking(talk) as connection:
        with pytest.raises(ConnectionError, match=complaint):
            await connection.post(b"{}")
        assert (await connection.post(b"{}")).status == 201


async def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_up = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await one_request(reader)
        if request.endswith(b"first"):
            await given_up.wait()
            writer.write(CREATED.replace(b"{}", b"1."))
        else:
            writer.write(CREATED.replace(b"{}", b"2."))

    async with talking(talk) as connection:
        monkeypatch.setattr(http_connection, "ANSWER_SECONDS", 0.05)
        with pytest.raises(TimeoutError):
            await connection.post(b"first")
        monkeypatch.setattr(http_connection, "ANSWER_SECONDS", 30)
        given_up.set()
        assert (await connection.post(b"second")).body == b"2."


async def test_an_answer_that_nobody_asked_for_is_dropped() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await one_request(reader)
        writer.write(CREATED.replace(b"{}", request[-2:]))
        await writer.drain()
        if request.endswith(b"1."):
            writer.write(CREATED.replace(b"{}", b"??"))
        await reader.read()

    async with talking(talk) as connection:
        assert (await connection.post(b"1.")).body == b"1."
        await eventually(lambda: is_closed(connection))
        assert (await connection.post(b"2.")).body == b"2."


@pytest.mark.parametrize("trusted", [True, False])
async def test_over_tls_only_a_certificate_that_is_trusted_will_do(
    trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one_request(reader)
        writer.write(CREATED)

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(_certificate(tmp_path))
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    async with talking(talk, tls, "https://127.0.0.1:{port}/orders") as connection:
        if trusted:
            assert (await connection.post(b"{}")).status == 201
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                await connection.post(b"{}")


def _certificate(folder: Path) -> Path:
    """A key and the certificate that it signed itself, for 127.0.0.1."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    pem, unencrypted = serialization.Encoding.PEM, serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, unencrypted) + certificate.public_bytes(pem)
    )
    return file
