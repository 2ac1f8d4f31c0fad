"""Cards of products, as the catalogue's feed has them: one document a product, listed unless it is retired."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from projector.projection import Entry, Projection, RecordedEvent, check_next, own_stream
from shared.catalogue import CATALOGUE, PRODUCT, Product, with_ancestors
from shared.currencies import exponent_of
from shared.read_models import product_indexes
from shared.read_models.keys import sort_key


class ProductSummary(msgspec.Struct, frozen=True):
    product_id: str
    name: str
    brand: str | None
    category: str | None
    tags: tuple[str, ...]
    unit_price: int
    currency: str
    currency_exponent: int
    sku: str | None
    review_count: int
    review_average: float | None  # with two decimals
    retired: bool
    created_at: datetime
    version: int


class ProductCard(ProductSummary, frozen=True):
    description: str | None


_decode = msgspec.json.Decoder(Product).decode


def apply(product_id: str, document: ProductCard | None, recorded: RecordedEvent[Any]) -> ProductCard:
    """The card after the change. Raises `OutOfOrder`."""
    check_next(product_id, document, recorded)
    product = _decode(recorded.data)
    return ProductCard(
        product_id=product_id,
        name=product.name,
        description=product.description,
        brand=product.brand,
        category=product.category,
        tags=product.tags,
        unit_price=product.unit_price,
        currency=product.currency,
        currency_exponent=exponent_of(product.currency),
        sku=product.sku,
        review_count=product.reviews,
        review_average=round(product.stars / product.reviews, 2) if product.reviews else None,
        retired=product.retired,
        created_at=product.created_at,
        version=recorded.version,
    )


def entries(document: ProductCard) -> frozenset[Entry]:
    """In the list of each category that it is in, of each tag, and of both together."""
    if document.retired:
        return frozenset()
    categories = [None] if document.category is None else [None, *with_ancestors(document.category)]
    entry = sort_key(document.created_at, document.product_id)
    return frozenset(
        (product_indexes.of(category, tag), entry) for category in categories for tag in (None, *document.tags)
    )


def summary(document: ProductCard) -> ProductSummary:
    """The card without its description."""
    return msgspec.convert(document, ProductSummary, from_attributes=True)


PRODUCTS = Projection("products", ProductCard, own_stream(PRODUCT), apply, entries, summary=summary, feed=CATALOGUE)
