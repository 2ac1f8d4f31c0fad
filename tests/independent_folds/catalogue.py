"""The read models "products" and "categories" in Redis: what the tables of the catalogue say, joined once more."""

from __future__ import annotations

from typing import Any

import asyncpg

from tests.independent_folds.event_rows import Log
from tests.independent_folds.orders import Document, read_documents

MINOR_UNITS = {"JPY": 0, "GBP": 2, "KWD": 3}
_CARDS = """
select p.product_id, p.name, b.name as brand, c.path as category, p.unit_price, p.currency, p.sku, p.retired, p.version,
       array(select t.name from product_tags l, tags t
             where l.product_id = p.product_id and t.tag_id = l.tag_id order by t.name) as tags,
       (select count(*) from reviews r where r.product_id = p.product_id) as review_count,
       (select round(avg(stars), 2)::float8 from reviews r where r.product_id = p.product_id) as review_average,
       p.description
from products p left join brands b using (brand_id) left join categories c using (category_id)
"""


async def assert_equals(database_url: str, redis_url: str, seconds: float) -> None:
    """The live generations hold what the tables say, within the time."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            cards = {row["product_id"]: dict(row) for row in await connection.fetch(_CARDS)}
            paths = [row["path"] for row in await connection.fetch("select path from categories order by path")]
            head = await connection.fetchrow("select log_id, position from catalogue_head")
    finally:
        await connection.close()
    assert head is not None
    feed = Log([], head["log_id"], head["position"])
    found = await read_documents(feed, redis_url, "products", seconds)
    for document in found.values():
        assert document.pop("created_at").endswith("Z")
        assert document.pop("currency_exponent") == MINOR_UNITS[document["currency"]]
    assert found == cards
    tree = await read_documents(feed, redis_url, "categories", seconds)
    assert tree == ({"tree": {"categories": _nodes("", paths), "version": len(paths)}} if paths else {})


def _nodes(above: str, paths: list[str]) -> list[Document]:
    found: list[dict[str, Any]] = []
    for path in paths:
        parent, _, name = path.rpartition("/")
        if parent == above:
            found.append({"name": name, "path": path, "children": _nodes(path, paths)})
    return found
