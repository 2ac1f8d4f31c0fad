"""The commands on products of the catalogue, which is kept in tables."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Request
from pydantic import AfterValidator, Field, StrictInt, StringConstraints
from pydantic_core import PydanticCustomError
from starlette.responses import Response
from uuid_utils import uuid7

from command_service import catalogue
from command_service.api.acknowledgement import HEADERS, LOCATION, Acknowledgement, acknowledge
from command_service.api.bodies import CommandBody, Currency, ShortText, Text
from command_service.api.commands import STALE, CommandRoute, describe
from command_service.api.metadata import read_metadata
from command_service.api.order_bodies import Sku, UnitPrice
from command_service.api.order_texts import ERASED, NO_KEYS, key_of_customer
from command_service.catalogue import Catalogue, Change
from command_service.domain.customer import CustomerIsErased
from command_service.domain.product import ProductNotFound
from command_service.group_commit import AppendOutcomeUnknown
from command_service.handler import VersionConflict
from shared.catalogue import MAX_CATEGORIES, MAX_DEPTH, MAX_TAGS
from shared.http.fields import Id, ProductId
from shared.http.form_errors import format_of
from shared.http.openapi import Described
from shared.identity.access import allowed, check_owner
from shared.identity.caller import ForeignOwner, Role
from shared.privacy.sealed import is_of_erased

DESCRIPTION = "Products of the catalogue, with brand, category, tags and reviews: tables, not events."
router = APIRouter(tags=["products"], route_class=CommandRoute)

REVIEW_TEXT = "review.text"  # what it is sealed as
MAX_DESCRIPTION = 2_000

Category = Annotated[
    str,
    StringConstraints(
        pattern=format_of(
            rf"^[^/\x00-\x1f\x7f]{{1,50}}(?:/[^/\x00-\x1f\x7f]{{1,50}}){{0,{MAX_DEPTH - 1}}}$",
            "not-a-category",
            f"Give up to {MAX_DEPTH} names from the root, of up to 50 characters each, with slashes between them.",
        )
    ),
]
Tag = Annotated[ShortText, StringConstraints(max_length=50)]


def _distinct(tags: list[str]) -> list[str]:
    if len(set(tags)) < len(tags):
        raise PydanticCustomError("repeated", "Give each tag once.")
    return tags


class SaveProductBody(CommandBody):
    name: Text = Field(examples=["WHITE METAL LANTERN"])
    unit_price: UnitPrice = Field(examples=[339])
    currency: Currency = Field(examples=["GBP"])
    description: Annotated[Text, StringConstraints(max_length=MAX_DESCRIPTION)] | None = Field(
        None, examples=["For one candle."]
    )
    brand: ShortText | None = Field(None, examples=["Lumen"])
    category: Category | None = Field(
        None, description="a path from the root; categories that are new are added", examples=["Home/Lighting"]
    )
    tags: Annotated[list[Tag], Field(max_length=MAX_TAGS), AfterValidator(_distinct)] = Field(
        default=[], examples=[["candle", "white"]]
    )
    sku: Sku | None = Field(None, examples=["LANTERN/WHITE"])


class AddReviewBody(CommandBody):
    review_id: Id | None = Field(None, description="yours, or we make one", examples=["review-1"])
    customer_id: Id = Field(examples=["17850"])
    stars: Annotated[StrictInt, Field(ge=1, le=5)] = Field(examples=[4])
    text: Annotated[Text, StringConstraints(max_length=2_000)] | None = Field(None, examples=["Gives a warm light."])


CatalogueProduct = Annotated[ProductId, Path(description="as orders name it", examples=["LANTERN"])]

_NOT_FOUND: Described = (
    ProductNotFound("LANTERN"),
    "The catalogue does not have the product, or it was retired.",
)
_ANY_CHANGE: tuple[Described, ...] = (
    STALE,
    (VersionConflict(9), "Other changes of the catalogue kept colliding with this one; try again."),
)
_NEW: dict[str, Any] = {
    "model": Acknowledgement,
    "description": "The product is new",
    "headers": {**HEADERS, "Location": LOCATION},
}


async def _carry_out(request: Request, change: Change, body: CommandBody | None, *, adds: bool = False) -> Response:
    """The acknowledgement, with the token of the catalogue's feed. `adds`: the change makes something new, as one does
    that leads to a product's first version."""
    kept: Catalogue = request.app.state.catalogue
    metadata = read_metadata(request, body)
    try:
        result = await kept.carry_out(change, metadata)
    except asyncio.CancelledError:  # by the server, when the time to finish what it accepted is over
        raise AppendOutcomeUnknown(str(metadata.command_id)) from None
    answer = acknowledge(result)
    if adds or result.version == 1:
        answer.status_code = 201
        answer.headers["location"] = f"{request.app.state.query_url}/products/{quote(change.product_id)}"
    return answer


def _described() -> dict[str, Any]:
    described = describe(
        *_ANY_CHANGE,
        (catalogue.TooManyCategories(MAX_CATEGORIES), f"The catalogue has {MAX_CATEGORIES} categories."),
    )
    described["responses"] |= {201: _NEW}
    return described


@router.put("/products/{product_id}", summary="Save a product", **_described())
@allowed(Role.STAFF, Role.SERVICE)
async def save_product(request: Request, product_id: CatalogueProduct, body: SaveProductBody) -> Response:
    """The whole of it: what is left out is taken off. A product that was retired is back."""
    product = catalogue.SaveProduct(product_id, **body.model_dump(exclude={"occurred_at"}))
    return await _carry_out(request, product, body)


@router.delete("/products/{product_id}", summary="Retire a product", **describe(_NOT_FOUND, *_ANY_CHANGE))
@allowed(Role.STAFF, Role.SERVICE)
async def retire_product(
    request: Request,
    product_id: Annotated[ProductId, Path(description="as orders name it", examples=["OLD LANTERN"])],
) -> Response:
    """No list shows it any more. Its card, and orders of it, stay."""
    return await _carry_out(request, catalogue.RetireProduct(product_id), None)


@router.post(
    "/products/{product_id}/reviews",
    summary="Add a review",
    **describe(
        _NOT_FOUND,
        *_ANY_CHANGE,
        (catalogue.ReviewAlreadyAdded("review-1"), "There is a review with this id."),
        (ForeignOwner("customer", "13047"), "The caller is another customer."),
        ERASED,
        NO_KEYS,
        status=201,
    ),
)
@allowed(Role.CUSTOMER, Role.STAFF, Role.SERVICE)
async def add_review(request: Request, product_id: CatalogueProduct, body: AddReviewBody) -> Response:
    """Of one customer. The text is sealed; the card of the product shows the number of reviews and their average."""
    check_owner(request.scope, "customer", body.customer_id)
    text = None
    if body.text is not None:
        text = (await key_of_customer(request, body.customer_id)).seal(REVIEW_TEXT, body.text)
        if is_of_erased(text):
            raise CustomerIsErased(body.customer_id)
    review = catalogue.AddReview(product_id, body.review_id or str(uuid7()), body.customer_id, body.stars, text)
    return await _carry_out(request, review, body, adds=True)
