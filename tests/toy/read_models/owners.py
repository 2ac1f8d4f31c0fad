"""The read model of owners, in Redis: one owner, and all owners."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from query_service.api.dependencies import answer
from query_service.api.requests import unless_known
from query_service.coalescing_reader import CoalescingReader
from query_service.parked_document import parked_headers
from query_service.read_model import ReadModel
from query_service.read_result import Document, IndexPage, ReadResult
from query_service.redis_store import in_redis
from shared.eventstore.token import ConsistencyToken
from shared.http import problems
from shared.http.fast_route import FastRoute
from shared.identity.access import allowed
from shared.identity.caller import Role

router = APIRouter(tags=["owners"], route_class=FastRoute)


class OwnersReader:
    def __init__(self, reader: CoalescingReader) -> None:
        self._reader = reader

    def one(self, owner_id: str, at_least: ConsistencyToken | None) -> asyncio.Future[ReadResult[Document]]:
        return self._reader.document(owner_id, at_least)

    def first(self, owners: int) -> asyncio.Future[ReadResult[IndexPage]]:
        return self._reader.page("all", None, owners)


@router.get("/owners/{owner_id}")
@allowed(Role.STAFF)
async def get_owner(request: Request, owner_id: str) -> Response:
    at, document, headers = await answer(request, OWNERS, lambda owners, at_least: owners.one(owner_id, at_least))
    headers |= parked_headers(document, at, request.headers.get("consistency-token"))
    if document.body is None or document.version is None:
        detail = f"There is no owner {owner_id!r}."
        return problems.problem(404, "owner-not-found", "There is no such owner", detail, request.url.path, headers)
    return unless_known(request, document.body, f'"{document.version.decode()}"', headers)


@router.get("/owners")
@allowed(Role.STAFF)
async def list_owners(request: Request) -> Response:
    _, page, headers = await answer(request, OWNERS, lambda owners, _: owners.first(20))
    return Response(b"[%b]" % b",".join(page.summaries), headers=headers, media_type="application/json")


OWNERS = ReadModel("owners", in_redis, OwnersReader, router, tag="owners", tag_description="Owners of wallets.")
