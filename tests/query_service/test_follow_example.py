"""docs/examples/follow.js comes back after whatever has ended its event stream."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from cli.stack.embedded_server import free_port
from query_service.api import event_stream
from tests.hostile.connections import lifespan
from tests.running import running_app

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "follow.js"
SCRIPT = Path(__file__).with_name("follow_example.mjs")
SECONDS = 20


def stream(block: bytes) -> Response:
    """Which then ends. A browser comes back after 10 ms."""
    return Response(b"retry: 10\n\n" + block, media_type=event_stream.MEDIA_TYPE)


def proxy_error(status: int) -> Response:
    return Response("<html>", status, media_type="text/html")


def refusal(status: int, code: str) -> Response:
    return JSONResponse({"code": code, "status": status}, status, media_type="application/problem+json")


@pytest.mark.subprocess
@pytest.mark.skipif(shutil.which("node") is None, reason="the example runs in Node.js")
async def test_the_example_comes_back_after_whatever_ended_its_stream() -> None:
    answers = [
        proxy_error(502), proxy_error(502),  # the stream, and the question why
        stream(event_stream.event(5, b'{"position":5}')),
        stream(b'event: problem\ndata: {"code":"too-many-streams"}\n\n'),
        proxy_error(503), refusal(503, "log-unavailable"),
        stream(event_stream.event(7, b'{"position":7}')),
    ]  # fmt: skip
    asked: list[tuple[str | None, str | None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        request = Request(scope, receive)
        asked.append((request.query_params.get("after"), request.headers.get("last-event-id")))
        await answers[len(asked) - 1](scope, receive, send)

    async with running_app(app, free_port()) as url:
        assert await printed(f"{url}/events", events=2) == [
            ["event", {"position": 5}],
            ["problem", {"code": "too-many-streams"}],
            ["problem", {"code": "log-unavailable", "status": 503}],
            ["event", {"position": 7}],
        ]
    nothing = (None, None)
    assert asked == [nothing, nothing, nothing, (None, "5"), (None, "5"), nothing, ("5", None)]


@pytest.mark.subprocess
@pytest.mark.skipif(shutil.which("node") is None, reason="the example runs in Node.js")
async def test_the_example_gives_up_where_no_later_attempt_can_help() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        await refusal(404, "order-not-found")(scope, receive, send)

    async with running_app(app, free_port()) as url:
        assert await printed(f"{url}/events", events=1) == [["problem", {"code": "order-not-found", "status": 404}]]


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
