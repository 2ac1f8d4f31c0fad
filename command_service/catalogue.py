"""The catalogue: plain SQL on its tables, and a row of its feed in the same transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from command_service.decision import CommandMetadata, OtherLog, StaleVersion, encode_metadata
from command_service.domain import business_time
from command_service.domain.product import CatalogueProduct, ProductNotFound
from command_service.group_commit import TRANSIENT, AppendOutcomeUnknown, LogUnavailable
from command_service.handler import KeyReused, VersionConflict
from shared import metrics
from shared.catalogue import MAX_CATEGORIES, product_stream, with_ancestors
from shared.errors import OrdersError, Rejected
from shared.eventstore.append_request import AppendResult, AppendStatus
from shared.postgres import CONNECTION_LOST

CONNECTIONS = 4  # changes of the catalogue that one process makes at a time

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"


class SaveProduct(NamedTuple):
    """`category` is a path: names from the root, separated by /. `tags` are distinct."""

    product_id: str
    name: str
    unit_price: int
    currency: str
    description: str | None = None
    brand: str | None = None
    category: str | None = None
    tags: Sequence[str] = ()
    sku: str | None = None


class RetireProduct(NamedTuple):
    product_id: str


class AddReview(NamedTuple):
    """`text` is sealed."""

    product_id: str
    review_id: str
    customer_id: str
    stars: int
    text: str | None = None


Change: TypeAlias = SaveProduct | RetireProduct | AddReview


@dataclass
class ReviewAlreadyAdded(Rejected):
    review_id: str
    code = "review-already-added"
    title = "There is a review with this id"

    @property
    def detail(self) -> str:
        return f"There is a review {self.review_id!r} already."


@dataclass
class TooManyCategories(Rejected):
    most: int
    code = "too-many-categories"
    title = "The catalogue has too many categories"

    @property
    def detail(self) -> str:
        return f"The catalogue has {self.most} categories, and takes no new one."


_FIND_KEY = """
select k.fingerprint, k.command_id, k.stream_id, k.version, k.position, h.log_id
from idempotency_keys k cross join catalogue_head h where h.only_row and k.key = $1
"""
_FIND_PRODUCTS = "select product_id, unit_price, currency, retired from products where product_id = any ($1)"
_INSERT = """
insert into products (product_id, version, name, description, brand_id, category_id, unit_price, currency, sku)
values ($1, 1, $2, $3, $4, $5, $6, $7, $8)
"""
_UPDATE = """
update products set version = version + 1, retired = false, name = $2, description = $3, brand_id = $4,
                    category_id = $5, unit_price = $6, currency = $7, sku = $8
where product_id = $1
"""
_REMOVE_TAGS = """
delete from product_tags l using tags t
where l.product_id = $1 and t.tag_id = l.tag_id and t.name <> all ($2)
"""
_ADD_TAGS = "insert into product_tags select $1, tag_id from tags where name = any ($2) on conflict do nothing"
_ADD_REVIEW = """
insert into reviews (review_id, product_id, customer_id, stars, text, written_at) values ($1, $2, $3, $4, $5, $6)
"""


async def read_products(pool: asyncpg.Pool[asyncpg.Record], product_ids: Iterable[str]) -> dict[str, CatalogueProduct]:
    """Those that the catalogue has, also retired ones. Raises `LogUnavailable`."""
    try:
        rows = await pool.fetch(_FIND_PRODUCTS, [*dict.fromkeys(product_ids)])
    except (*CONNECTION_LOST, *TRANSIENT) as error:
        raise LogUnavailable from error
    return {row[0]: CatalogueProduct(*row[1:]) for row in rows}


class Catalogue:
    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, retries: int, seconds: float) -> None:
        """`seconds` is the longest that one attempt may take; `retries` are those after a collision."""
        self._pool = pool
        self._retries = retries
        self._seconds = seconds

    async def carry_out(self, change: Change, metadata: CommandMetadata) -> AppendResult:
        """Raises `ProductNotFound`, `ReviewAlreadyAdded`, `TooManyCategories`, `StaleVersion`, `OtherLog`, `KeyReused`,
        `VersionConflict`, `OccurredInTheFuture`, `LogUnavailable` and `AppendOutcomeUnknown`."""
        name = type(change).__name__
        try:
            result = await self._carry_out(change, metadata)
        except OrdersError as error:
            metrics.COMMANDS.labels(name, error.code).inc()
            raise
        metrics.COMMANDS.labels(name, result.status).inc()
        return result

    async def _carry_out(self, change: Change, metadata: CommandMetadata) -> AppendResult:
        if metadata.occurred_at is not None:
            business_time.check(metadata.occurred_at, datetime.now(UTC), None)
        for _ in range(1 + self._retries):
            try:
                return await self._attempt(change, metadata)
            except (asyncpg.UniqueViolationError, asyncpg.TransactionRollbackError):
                continue  # another change was faster: the next attempt finds what it wrote
        raise VersionConflict(1 + self._retries)

    async def _attempt(self, change: Change, metadata: CommandMetadata) -> AppendResult:
        committing = False
        try:
            async with asyncio.timeout(self._seconds), self._pool.acquire() as connection, connection.transaction():
                result = await _change(connection, change, metadata)
                committing = True
            return result
        except asyncpg.TransactionRollbackError:
            raise
        except (*CONNECTION_LOST, *TRANSIENT) as error:
            if committing:
                raise AppendOutcomeUnknown(str(metadata.command_id)) from error
            raise LogUnavailable from error


async def _change(connection: Connection, change: Change, metadata: CommandMetadata) -> AppendResult:
    key = _stored_key(metadata.idempotency_key)
    if key is not None and (found := await connection.fetchrow(_FIND_KEY, key)) is not None:
        if found["fingerprint"] != metadata.fingerprint:
            raise KeyReused
        return AppendResult(AppendStatus.REPLAYED, *found[1:])
    version = await _check(connection, change, metadata)
    at = metadata.occurred_at or datetime.now(UTC)
    described = encode_metadata(change, metadata)
    new_categories: list[str] = []
    match change:
        case SaveProduct():
            new_categories = await _save(connection, change, version)
        case RetireProduct(product_id):
            await connection.execute(
                "update products set version = version + 1, retired = true where product_id = $1", product_id
            )
        case AddReview():
            await _add_review(connection, change, at)
    try:
        for path in new_categories:
            await connection.execute("select record_category($1, $2, $3)", path, described, at)
    except asyncpg.CheckViolationError as error:
        raise TooManyCategories(MAX_CATEGORIES) from error
    row = await connection.fetchrow(
        "select * from record_product_change($1, $2, $3, $4, $5, $6, $7)",
        change.product_id,
        _EVENT_TYPES[type(change)],
        described,
        at,
        metadata.command_id,
        key,
        metadata.fingerprint,
    )
    assert row is not None, "the product is there"
    stream = product_stream(change.product_id)
    return AppendResult(AppendStatus.APPENDED, metadata.command_id, stream, version + 1, row["position"], row["log_id"])


_EVENT_TYPES: dict[type[Any], str] = {
    SaveProduct: "ProductSaved",
    RetireProduct: "ProductRetired",
    AddReview: "ReviewAdded",
}


def _stored_key(given: str | None) -> str | None:
    """Of no key that `append_group` stores, which holds no space: neither waits for the other."""
    return None if given is None else f"catalogue {sha256(given.encode()).hexdigest()}"


async def _check(connection: Connection, change: Change, metadata: CommandMetadata) -> int:
    """The version of the product, 0 where it is new; locks its row."""
    row = await connection.fetchrow(
        "select version, retired from products where product_id = $1 for update", change.product_id
    )
    version = 0 if row is None else row["version"]
    if metadata.expected_version is not None:
        if metadata.expected_log_id is not None:
            known = await connection.fetchval("select log_id from catalogue_head where only_row")
            if metadata.expected_log_id != known:
                raise OtherLog(metadata.expected_version)
        if metadata.expected_version != version:
            raise StaleVersion(metadata.expected_version, version)
    if not isinstance(change, SaveProduct) and (row is None or row["retired"]):
        raise ProductNotFound(change.product_id)
    return version


async def _save(connection: Connection, product: SaveProduct, version: int) -> list[str]:
    """The paths of the categories that are new. Every transaction locks rows in this order: no circle of waiting."""
    brand_id = None if product.brand is None else await _brand_id(connection, product.brand)
    category_id, new = None, []
    for path in [] if product.category is None else with_ancestors(product.category):
        category_id, is_new = await _category_id(connection, path, category_id)
        if is_new:
            new.append(path)
    await connection.execute(
        _UPDATE if version else _INSERT,
        product.product_id,
        product.name,
        product.description,
        brand_id,
        category_id,
        product.unit_price,
        product.currency,
        product.sku,
    )
    tags = sorted(product.tags)
    if version:
        await connection.execute(_REMOVE_TAGS, product.product_id, tags)
    if tags:
        await connection.execute("insert into tags (name) select unnest($1::text[]) on conflict do nothing", tags)
        await connection.execute(_ADD_TAGS, product.product_id, tags)
    return new


async def _brand_id(connection: Connection, name: str) -> int:
    find = "select brand_id from brands where name = $1"
    if (found := await connection.fetchval(find, name)) is None:
        await connection.execute("insert into brands (name) values ($1) on conflict do nothing", name)
        found = await connection.fetchval(find, name)
    return int(found)


async def _category_id(connection: Connection, path: str, parent_id: int | None) -> tuple[int, bool]:
    """(its id, whether it is new)."""
    find = "select category_id from categories where path = $1"
    if (found := await connection.fetchval(find, path)) is not None:
        return found, False
    new = await connection.fetchval(
        "insert into categories (parent_id, path) values ($1, $2) on conflict do nothing returning category_id",
        parent_id,
        path,
    )
    return (new, True) if new is not None else (await connection.fetchval(find, path), False)


async def _add_review(connection: Connection, review: AddReview, at: datetime) -> None:
    """Raises `ReviewAlreadyAdded`."""
    if await connection.fetchval("select true from reviews where review_id = $1", review.review_id):
        raise ReviewAlreadyAdded(review.review_id)
    await connection.execute(
        _ADD_REVIEW, review.review_id, review.product_id, review.customer_id, review.stars, review.text, at
    )
    await connection.execute("update products set version = version + 1 where product_id = $1", review.product_id)
