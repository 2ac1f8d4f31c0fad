"""A web server of another origin: it serves one empty page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from cli.stack.embedded_server import free_port
from tests.running import running_app

_PAGE = "<!doctype html><title>shop</title><link rel=icon href='data:,'>"


async def _page(_: Request) -> Response:
    return HTMLResponse(_PAGE)


@asynccontextmanager
async def other_origin() -> AsyncIterator[str]:
    """Its address, by the name `localhost`."""
    port = free_port()
    async with running_app(Starlette(routes=[Route("/", _page)]), port):
        yield f"http://localhost:{port}"
