"""The catalogue's feed: what a row of it says, for the command service that writes it and the projector that reads it.

The catalogue is not event-sourced. Its tables are in `migrations/`, with the view that a row of the feed is made of.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from shared.eventstore.feed import Feed

CATALOGUE = Feed.of_tables("catalogue_changes", "catalogue_head")
# The categories of the streams of its rows.
PRODUCT = "product"
CATEGORY = "category"

MAX_TAGS = 10
MAX_DEPTH = 4  # of a category
MAX_CATEGORIES = 1_000


class Product(msgspec.Struct, frozen=True):
    """A product as it is after a change. `stars` is the sum over its reviews."""

    name: str
    description: str | None
    brand: str | None
    category: str | None  # names from the root, separated by /
    tags: tuple[str, ...]
    unit_price: int  # in minor units
    currency: str
    sku: str | None
    reviews: int
    stars: int
    retired: bool
    created_at: datetime


class Category(msgspec.Struct, frozen=True):
    path: str


def with_ancestors(path: str) -> list[str]:
    """The path of a category and those above it, from the root."""
    names = path.split("/")
    return ["/".join(names[:depth]) for depth in range(1, len(names) + 1)]


def product_stream(product_id: str) -> str:
    return f"{PRODUCT}-{product_id}"
