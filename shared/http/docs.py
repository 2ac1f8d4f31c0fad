"""The reference page of a service: Swagger UI, its files served by us, so that it works without internet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from html import escape
from pathlib import Path

import msgspec
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from shared.http.error_page import as_html, error_codes
from shared.http.problems import PAGE
from shared.identity.access import public

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="{root}/docs/swagger/favicon.png">
<link rel="stylesheet" href="{root}/docs/swagger/swagger-ui.css">
</head>
<body>
<div id="reference" data-document="{root}/openapi.json"></div>
<script src="{root}/docs/swagger/swagger-ui-bundle.js"></script>
<script src="{root}/docs/assets/reference.js"></script>
</body>
</html>
"""
# Swagger UI sets styles of elements, and has its icons in its style sheet.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _Assets(StaticFiles):
    """Files without data of a client: browsers may cache them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        scope["cacheable"] = True
        return await super().get_response(path, scope)


class _MadeOnce:
    """A document that takes long to make: it is made when it is first asked for, beside the event loop."""

    def __init__(self, making: asyncio.Lock, make: Callable[[], bytes]) -> None:
        self._making = making
        self._make = make
        self._content: bytes | None = None

    async def read(self) -> bytes:
        if self._content is None:
            async with self._making:
                if self._content is None:
                    self._content = await asyncio.to_thread(self._make)
        return self._content


def install(app: FastAPI) -> APIRouter:
    """Adds the files that the page loads; answers the routes of the OpenAPI document, of the pages and of the way to
    them from `/`."""
    making = asyncio.Lock()  # one at a time: all are made from the OpenAPI document
    document = _MadeOnce(making, lambda: msgspec.json.encode(app.openapi()))
    errors_page = _MadeOnce(making, lambda: as_html(app.title, error_codes([app.openapi()])).encode())
    app.mount("/docs/swagger", _Assets(packages=[("fastapi_offline", "static")]))
    app.mount("/docs/assets", _Assets(directory=Path(__file__).with_name("assets")))
    router = APIRouter(include_in_schema=False)

    @router.get("/openapi.json")
    @public
    async def openapi() -> Response:
        return Response(await document.read(), media_type="application/json")

    @router.get("/docs")
    @public
    async def reference(request: Request) -> Response:
        page = _PAGE.format(title=escape(app.title), root=escape(request.scope["root_path"]))
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    @router.get(PAGE)
    @public
    async def errors() -> Response:
        return HTMLResponse(
            await errors_page.read(), headers={"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}
        )

    @router.get("/")
    @public
    async def start(request: Request) -> Response:
        return RedirectResponse(f"{request.scope['root_path']}/docs")

    return router
