"""docs/examples/shop/follow.js comes back after whatever has ended its event stream."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from cli.stack.embedded_server import free_port
from query_service.api import event_stream
from shared.http import event_streams
from shared.http.protocol import protocol_of
from tests.hostile.connections import lifespan
from tests.running import running_app

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "shop" / "follow.js"
SCRIPT = Path(__file__).with_name("follow_example.mjs")
SECONDS = 20

pytestmark = [
    pytest.mark.subprocess,
    pytest.mark.skipif(shutil.which("node") is None, reason="the example runs in Node.js"),
]


def stream(*blocks: bytes) -> Response:
    """Which then ends. Each block comes in two pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        for block in blocks:
            yield block[:9]
            await asyncio.sleep(0.01)  # else they arrive as one
            yield block[9:]

    return StreamingResponse(pieces(), media_type=event_streams.MEDIA_TYPE)


def proxy_error(status: int) -> Response:
    return Response("<html>", status, media_type="text/html")


def refusal(status: int, code: str) -> Response:
    return JSONResponse({"code": code, "status": status}, status, media_type="application/problem+json")


async def cut(scope: Scope, _: Receive, send: Send) -> None:
    """The connection is lost after the first block."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"999")]})
    await send({"type": "http.response.body", "body": event_stream.heartbeat(8), "more_body": True})
    protocol_of(scope).transport.abort()


async def test_the_example_comes_back_after_whatever_ended_its_stream() -> None:
    answers: list[ASGIApp] = [
        stream(event_stream.opening(4, 10)),
        proxy_error(502),
        stream(event_stream.opening(4, 10), event_stream.event(5, b'{"position":5}')),
        stream(event_streams.refusal_block(b'{"code":"too-many-streams"}', 0.01)),
        proxy_error(503),
        refusal(503, "log-unavailable"),
        stream(event_stream.opening(5, 10), event_stream.event(7, b'{"position":7}'), event_stream.heartbeat(8)),
        cut,
        stream(event_stream.event(9, b'{"position":9}')),
    ]
    asked: list[tuple[str | None, str | None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        request = Request(scope, receive)
        asked.append((request.query_params.get("after"), request.headers.get("authorization")))
        await answers[len(asked) - 1](scope, receive, send)

    async with running_app(app, free_port()) as url:
        assert await printed(f"{url}/events", events=3) == [
            ["event", {"position": 5}],
            ["problem", {"code": "too-many-streams"}],
            ["problem", {"code": "log-unavailable", "status": 503}],
            ["event", {"position": 7}],
            ["event", {"position": 9}],
        ]
    after = [None, "4", "4", "5", "5", "5", "5", "8", "8"]
    assert asked == [(position, f"Bearer {number}") for number, position in enumerate(after, 1)]


async def test_the_example_gives_up_where_no_later_attempt_can_help() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        await refusal(404, "order-not-found")(scope, receive, send)

    async with running_app(app, free_port()) as url:
        assert await printed(f"{url}/events", events=1) == [
            ["problem", {"code": "order-not-found", "status": 404}],
            ["ended", 1],
        ]


async def printed(url: str, events: int) -> list[object]:
    """What the example printed until it ended."""
    node = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT), str(EXAMPLE), url, str(events), stdout=asyncio.subprocess.PIPE
    )
    assert node.stdout is not None
    async with asyncio.timeout(SECONDS):
        lines = (await node.stdout.read()).splitlines()
        assert await node.wait() == 0
    return [json.loads(line) for line in lines]
