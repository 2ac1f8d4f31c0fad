"""A stand-in for PgBouncer in session mode, for machines without it: it does to a session what mattered here."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from cli.stack.embedded_server import HOST, free_port

KNOWN = {"user", "database", "client_encoding", "application_name", "timezone", "datestyle"}
INVENTED_PID = 4_711
_SSL_REQUEST = 80_877_103


@asynccontextmanager
async def running_pooler(target: int) -> AsyncIterator[int]:
    """In front of the server at that port; yields its own. It refuses startup parameters that it does not know, and
    says that each session has the process `INVENTED_PID`."""
    sessions: set[asyncio.Task[None]] = set()

    async def connected(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        sessions.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await _serve(client, to_client, target)
        finally:
            to_client.transport.abort()
            sessions.discard(task)

    port = free_port()
    server = await asyncio.start_server(connected, HOST, port)
    try:
        yield port
    finally:
        server.close()
        for task in sessions:
            task.cancel()
        if sessions:
            await asyncio.wait(sessions)


async def _serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter, target: int) -> None:
    startup = await _startup(client, to_client)
    names = startup[8:].rstrip(b"\0").split(b"\0")[::2]
    if unknown := {name.decode().lower() for name in names} - KNOWN:
        message = f"SFATAL\0C08P01\0Munsupported startup parameter: {min(unknown)}\0\0".encode()
        to_client.write(b"E" + struct.pack("!i", len(message) + 4) + message)
        await to_client.drain()
        return
    server, to_server = await asyncio.open_connection(HOST, target)
    to_server.write(startup)
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_pass_on(client, to_server))
            both.create_task(_answer(server, to_client))
    except* OSError:
        pass
    finally:
        to_server.transport.abort()


async def _startup(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> bytes:
    """With its length; it speaks no TLS."""
    while True:
        length = await client.readexactly(4)
        rest = await client.readexactly(struct.unpack("!i", length)[0] - 4)
        if struct.unpack("!i", rest[:4])[0] != _SSL_REQUEST:
            return length + rest
        to_client.write(b"N")


async def _answer(server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
    kind = b""
    while kind != b"Z":  # ready for the first query
        kind, length = await server.readexactly(1), await server.readexactly(4)
        body = await server.readexactly(struct.unpack("!i", length)[0] - 4)
        if kind == b"K":
            body = struct.pack("!i", INVENTED_PID) + body[4:]
        to_client.write(kind + length + body)
    await _pass_on(server, to_client)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError  # ends the other direction
