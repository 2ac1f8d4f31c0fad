"""A catalogue for tests: what is saved, and what the tables say by a join that shares no code with the product."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.recording import Connection

LANTERN: dict[str, Any] = {
    "name": "WHITE METAL LANTERN",
    "description": "For one candle.",
    "brand": "Lumen",
    "category": "Home/Lighting",
    "tags": ["white", "candle"],
    "unit_price": 339,
    "currency": "GBP",
    "sku": "LANTERN/WHITE",
}


OF_CATALOGUE = ("products", "categories")  # read models of its feed


def of_the_log(status: httpx.Response) -> list[dict[str, Any]]:
    """What `GET /projections` says of the read models of the event log."""
    return [one for one in status.json()["projections"] if one["name"] not in OF_CATALOGUE]


async def save(commands: httpx.AsyncClient, product_id: str = "LANTERN", **changes: Any) -> httpx.Response:
    answer = await commands.put(f"/products/{product_id}", json={**LANTERN, **changes})
    assert answer.status_code in (200, 201), answer.text
    return answer


async def review(commands: httpx.AsyncClient, product_id: str = "LANTERN", **changes: Any) -> httpx.Response:
    body = {"customer_id": "17850", "stars": 4, **changes}
    answer = await commands.post(f"/products/{product_id}/reviews", json=body)
    assert answer.status_code == 201, answer.text
    return answer


async def cards_by_join(connection: Connection) -> dict[str, dict[str, Any]]:
    """Product id -> the card, by joining the tables."""
    rows = await connection.fetch("""
        select p.product_id, p.name, p.description, b.name as brand, c.path as category,
               p.unit_price, p.currency, p.sku,
               array(select t.name from product_tags join tags t using (tag_id)
                     where product_id = p.product_id order by t.name) as tags,
               (select count(*) from reviews r where r.product_id = p.product_id) as review_count,
               (select round(avg(stars), 2)::float8 from reviews r where r.product_id = p.product_id) as review_average,
               p.retired, p.version
        from products p left join brands b using (brand_id) left join categories c using (category_id)
    """)
    return {row["product_id"]: dict(row) for row in rows}


async def changes(connection: Connection) -> list[tuple[int, str, int, str, dict[str, Any]]]:
    """(position, stream, version, type, data) of each row of the feed."""
    rows = await connection.fetch(
        "select position, stream_id, version, event_type, data from catalogue_changes order by position"
    )
    return [(*row[:4], json.loads(row["data"])) for row in rows]
