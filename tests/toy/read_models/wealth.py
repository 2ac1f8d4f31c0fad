"""The read model of wealth, in PostgreSQL: its lines, and what one owner adds to them."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from query_service.api.dependencies import answer
from query_service.parked_document import parked_headers
from query_service.postgresql_reader import PostgresReader
from query_service.postgresql_store import in_postgresql
from query_service.read_model import ReadModel
from query_service.read_result import Document, ReadResult, RollupLines
from shared.http import problems
from shared.identity.access import allowed
from shared.identity.caller import Role

router = APIRouter(tags=["wealth"])


class WealthReader:
    def __init__(self, reader: PostgresReader) -> None:
        self._reader = reader

    async def lines(self, wallets: str | None) -> ReadResult[RollupLines]:
        """That of owners with so many wallets, or all."""
        condition = "$2::text is null or line.wallets = $2"
        return await self._reader.lines("wealth", ("wallets", "owners", "total"), condition, wallets)

    async def of_owner(self, owner_id: str) -> ReadResult[Document]:
        return await self._reader.document(owner_id)


@router.get("/wealth")
@allowed(Role.STAFF)
async def get_wealth(request: Request, wallets: str | None = None) -> Response:
    _, page, headers = await answer(request, WEALTH, lambda wealth, _: wealth.lines(wallets))
    lines = [{"wallets": count, "owners": owners, "total": int(total)} for count, owners, total in page.lines]
    if page.parked:
        headers["Projection-Parked-Streams"] = str(page.parked)
    return Response(msgspec.json.encode(lines), headers=headers, media_type="application/json")


@router.get("/wealth/{owner_id}")
@allowed(Role.STAFF)
async def get_owner_wealth(request: Request, owner_id: str) -> Response:
    at, document, headers = await answer(request, WEALTH, lambda wealth, _: wealth.of_owner(owner_id))
    headers |= parked_headers(document, at, request.headers.get("consistency-token"))
    if document.body is None:
        detail = f"There is no owner {owner_id!r}."
        return problems.problem(404, "owner-not-found", "There is no such owner", detail, request.url.path, headers)
    return Response(document.body, headers=headers, media_type="application/json")


WEALTH = ReadModel("wealth", in_postgresql, WealthReader, router, tag="wealth", tag_description="Sums over wallets.")
