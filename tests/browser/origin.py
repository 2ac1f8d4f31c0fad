"""A web server of another origin: it serves an empty page, and docs/ with the addresses of a test's stack."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cli.stack.embedded_server import free_port
from shared.settings import Settings
from tests.running import running_app

DOCS = Path(__file__).parents[2] / "docs"
_PAGE = "<!doctype html><title>shop</title><link rel=icon href='data:,'>"


@asynccontextmanager
async def other_origin(stack: Settings, files: Mapping[str, str] | None = None) -> AsyncIterator[str]:
    """Its address, by the name `localhost`. Beside docs/ it serves these files, by name."""
    given = {"": _PAGE, **(files or {})}

    async def serve(request: Request) -> Response:
        name = request.path_params["name"]
        text = given[name] if name in given else (DOCS / name).read_text("utf-8")
        for documented, port in (("localhost:8001", stack.command_port), ("localhost:8002", stack.query_port)):
            text = text.replace(documented, f"127.0.0.1:{port}")
        return Response(text, media_type=mimetypes.guess_type(name)[0] or "text/html")

    port = free_port()
    async with running_app(Starlette(routes=[Route("/{name:path}", serve)]), port):
        yield f"http://localhost:{port}"
