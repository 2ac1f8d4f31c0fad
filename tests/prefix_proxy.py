"""A reverse proxy that serves each service below a path prefix, which it takes off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tests.hostile.connections import lifespan
from tests.running import running_app

_OF_ONE_CONNECTION = {b"connection", b"keep-alive", b"transfer-encoding"}


@asynccontextmanager
async def prefix_proxy(port: int, services: Mapping[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it. `services` are addresses by prefix."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        request = Request(scope, receive)
        for prefix, service in services.items():
            if scope["path"].startswith(f"{prefix}/"):
                await _pass_on(upstream, request, service + scope["path"].removeprefix(prefix), send)
                return
        await Response(status_code=404)(scope, receive, send)

    async with (
        httpx.AsyncClient(timeout=30) as upstream,
        running_app(app, port) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        yield client


async def _pass_on(upstream: httpx.AsyncClient, request: Request, url: str, send: Send) -> None:
    query = request.scope["query_string"].decode()
    address = f"{url}?{query}" if query else url
    content = await request.body()
    async with upstream.stream(request.method, address, headers=request.headers.raw, content=content) as answer:
        passed = StreamingResponse(answer.aiter_raw(), answer.status_code)
        headers = [(name.lower(), value) for name, value in answer.headers.raw]
        passed.raw_headers = [(name, value) for name, value in headers if name not in _OF_ONE_CONNECTION]
        await passed(request.scope, request.receive, send)
