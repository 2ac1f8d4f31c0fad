"""The categories read model: the tree of the catalogue's categories."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from query_service.api.dependencies import answer
from query_service.api.documents import UNAVAILABLE
from query_service.api.pages import etag_of_body
from query_service.api.requests import (
    ETAG_EXAMPLE,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    PARKED_HEADER,
    TOKEN_HEADERS,
    answer_headers,
    unless_known,
)
from query_service.coalescing_reader import CoalescingReader
from query_service.parked_document import ProjectionParked, parked_headers
from query_service.read_model import ReadModel
from query_service.read_result import Document, ReadResult
from query_service.redis_store import in_redis
from shared.catalogue import CATALOGUE
from shared.eventstore.token import ConsistencyToken
from shared.http.fast_route import FastRoute
from shared.http.openapi import responses
from shared.http.request_headers import header
from shared.identity.access import allowed
from shared.identity.caller import READERS, Role

router = APIRouter(tags=["categories"], route_class=FastRoute)

_TREE = "tree"
_EMPTY = b'{"categories":[],"version":0}'


class CategoriesReader:
    def __init__(self, reader: CoalescingReader) -> None:
        self._reader = reader

    def tree(self, at_least: ConsistencyToken | None) -> asyncio.Future[ReadResult[Document]]:
        return self._reader.document(_TREE, at_least)


_EXAMPLE: dict[str, Any] = {
    "categories": [
        {"name": "Home", "path": "Home", "children": [{"name": "Lighting", "path": "Home/Lighting", "children": []}]}
    ],
    "version": 2,
}


class Category(BaseModel):
    name: str
    path: str
    children: list[Category]


class CategoryTree(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})
    categories: list[Category]
    version: int = Field(description="number of categories")


@router.get(
    "/categories",
    summary="The tree of categories",
    description="Each with those below it, by name. Products are listed by the `path` of a category.",
    response_model=CategoryTree,
    responses={
        200: {"description": "The tree", "headers": answer_headers(ETAG_EXAMPLE) | PARKED_HEADER},
        **NOT_MODIFIED,
        **responses(
            *UNAVAILABLE,
            (ProjectionParked(12, "CategoryAdded"), "The read model could not apply a change of the tree."),
        ),
    },
    openapi_extra={"parameters": [*TOKEN_HEADERS, IF_NONE_MATCH]},
)
@allowed(Role.CUSTOMER, *READERS)
async def get_categories(request: Request) -> Response:
    at, found, headers = await answer(request, CATEGORIES, lambda reader, at_least: reader.tree(at_least))
    headers |= parked_headers(found, at, header(request.scope, b"consistency-token"))
    body = _EMPTY if found.body is None else found.body
    return unless_known(request, body, etag_of_body(body), headers)


CATEGORIES = ReadModel(
    name="categories",
    store=in_redis,
    reader=CategoriesReader,
    router=router,
    tag="categories",
    tag_description="The tree of the catalogue's categories.",
    feed=CATALOGUE,
)
