"""Cards of products, lists of them and the tree of categories, with tokens of both feeds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import httpx
import pytest

from cli.failure import CommandFailed
from cli.projection_admin.admin import open_admin
from projector.projections import PROJECTIONS
from shared.settings import Settings
from tests.catalogue import OF_CATALOGUE, cards_by_join, review, save
from tests.given_when_then import problem
from tests.independent_folds import assert_read_models_equal_the_log
from tests.orders import place
from tests.recording import Connection
from tests.roles import settings_of
from tests.running import clients_of, running_stack


class Shop(NamedTuple):
    commands: httpx.AsyncClient
    queries: httpx.AsyncClient
    connection: Connection
    settings: Settings

    async def get(self, path: str, *after: httpx.Response, **params: Any) -> httpx.Response:
        """With the tokens of these acknowledgements."""
        return await self.queries.get(path, params=params, headers=tokens(after))


def tokens(answers: Sequence[httpx.Response]) -> dict[str, str]:
    return {"Consistency-Token": ", ".join(one.headers["consistency-token"] for one in answers), "Prefer": "wait=20"}


@pytest.fixture
async def shop(settings: Settings, connection: Connection, redis_url: str) -> AsyncIterator[Shop]:
    async with running_stack(settings), clients_of(settings) as (commands, queries):
        yield Shop(commands, queries, connection, settings)
        database_url = settings.database_url.get_secret_value()
        await assert_read_models_equal_the_log(database_url, redis_url, read_models=["catalogue"])


@pytest.mark.promise("read-models", "A product's card joins brand, category, tags, reviews and what is available")
async def test_a_card_joins_a_product_with_all_that_is_said_about_it(shop: Shop) -> None:
    await save(shop.commands, "NAVY MUG", brand="Potter", category="Kitchen/Mugs", tags=["navy", "gift"])
    for stars in (5, 4):
        await review(shop.commands, "NAVY MUG", stars=stars, text="Keeps warm")
    reviewed = await review(shop.commands, "NAVY MUG", stars=4)
    received = await shop.commands.post("/products/NAVY MUG/stock/receipts", json={"quantity": 9})
    items = [{"product_id": "NAVY MUG", "quantity": 2, "unit_price": 339}]
    ordered = await place(shop.commands, items=items)

    card = await shop.get("/products/NAVY MUG", reviewed, received, ordered)

    assert card.status_code == 200, card.text
    shown = card.json()
    created_at = shown.pop("created_at")
    assert shown == {
        "product_id": "NAVY MUG",
        "name": "WHITE METAL LANTERN",
        "brand": "Potter",
        "category": "Kitchen/Mugs",
        "tags": ["gift", "navy"],
        "unit_price": 339,
        "currency": "GBP",
        "currency_exponent": 2,
        "sku": "LANTERN/WHITE",
        "review_count": 3,
        "review_average": 4.33,
        "retired": False,
        "version": 4,
        "description": "For one candle.",
        "available": 7,
    }
    assert created_at.endswith("Z")
    joined = (await cards_by_join(shop.connection))["NAVY MUG"]
    assert {name: shown[name] for name in joined} == joined
    assert card.headers["projection-lag"].isdigit()
    again = await shop.queries.get(
        "/products/NAVY MUG",
        headers={"Consistency-Token": card.headers["consistency-token"], "If-None-Match": card.headers["etag"]},
    )
    assert again.status_code == 304


async def test_a_product_without_stock_and_reviews_has_a_card_too(shop: Shop) -> None:
    saved = await shop.commands.put("/products/PEN", json={"name": "PEN", "unit_price": 0, "currency": "JPY"})
    card = (await shop.get("/products/PEN", saved)).json()
    nothing = ("brand", "category", "sku", "description", "review_average", "available")
    assert [card[name] for name in nothing] == [None] * len(nothing)
    assert (card["tags"], card["review_count"], card["currency_exponent"]) == ([], 0, 0)
    problem(await shop.get("/products/PENCIL", saved), 404, "product-not-found")


async def test_products_are_listed_by_category_and_tag_newest_first_until_they_are_retired(shop: Shop) -> None:
    await save(shop.commands, "MUG", category="Kitchen/Mugs", tags=["white", "gift"])
    await save(shop.commands, "NAVY MUG", category="Kitchen/Mugs", tags=["navy"])
    await save(shop.commands, "PAN", category="Kitchen", tags=["gift"])
    last = await save(shop.commands, "LAMP", category="Home/Lighting", tags=["gift"])

    async def listed(**params: Any) -> list[str]:
        return [one["product_id"] for one in (await shop.get("/products", last, **params)).json()["products"]]

    assert await listed() == ["LAMP", "PAN", "NAVY MUG", "MUG"]
    assert await listed(category="Kitchen") == ["PAN", "NAVY MUG", "MUG"]
    assert await listed(category="Kitchen/Mugs") == ["NAVY MUG", "MUG"]
    assert await listed(tag="gift") == ["LAMP", "PAN", "MUG"]
    assert await listed(category="Kitchen", tag="gift") == ["PAN", "MUG"]
    assert await listed(category="Kit") == []
    first = (await shop.get("/products", last, limit=2)).json()
    assert await listed(limit=2, cursor=first["next_cursor"]) == ["NAVY MUG", "MUG"]
    assert "description" not in first["products"][0]
    after_a_space = (await shop.get("/products", last, limit=3)).json()
    assert await listed(limit=3, cursor=after_a_space["next_cursor"]) == ["MUG"]

    last = await shop.commands.delete("/products/PAN")
    assert await listed(category="Kitchen") == ["NAVY MUG", "MUG"]
    assert (await shop.get("/products/PAN", last)).json()["retired"] is True
    last = await save(shop.commands, "PAN", category="Garden")
    assert await listed(category="Kitchen") == ["NAVY MUG", "MUG"]
    assert await listed(category="Garden") == ["PAN"]


async def test_the_tree_has_every_category_below_its_parent(shop: Shop) -> None:
    assert (await shop.queries.get("/categories")).json() == {"categories": [], "version": 0}
    await save(shop.commands, "MUG", category="Kitchen/Mugs")
    await save(shop.commands, "LAMP", category="Home/Lighting/Lamps")
    last = await save(shop.commands, "PAN", category="Kitchen")

    def node(path: str, *children: dict[str, Any]) -> dict[str, Any]:
        return {"name": path.rpartition("/")[2], "path": path, "children": [*children]}

    assert (await shop.get("/categories", last)).json() == {
        "categories": [
            node("Home", node("Home/Lighting", node("Home/Lighting/Lamps"))),
            node("Kitchen", node("Kitchen/Mugs")),
        ],
        "version": 5,
    }


@pytest.mark.promise("queries", "A query takes tokens of the event log and of the catalogue, and waits for its own")
async def test_a_token_of_the_other_feed_does_not_keep_a_query_from_its_answer(shop: Shop) -> None:
    ordered = await place(shop.commands)
    saved = await save(shop.commands)
    order_id = ordered.json()["aggregate_id"]
    for path in (f"/orders/{order_id}", "/products/LANTERN", f"/orders/{order_id}/history", "/categories"):
        for after in ([ordered], [saved], [ordered, saved], [saved, ordered]):
            answer = await shop.queries.get(path, headers=tokens(after))
            assert answer.status_code in (200, 404), (path, answer.text)
            if (ordered in after and "orders" in path) or (saved in after and "products" in path):
                assert answer.status_code == 200, (path, answer.text)
    unknown = {"Consistency-Token": f"{'0' * 32}-1, {saved.headers['consistency-token']}"}
    for path in (f"/orders/{order_id}", "/products/LANTERN", f"/orders/{order_id}/history"):
        problem(await shop.queries.get(path, headers=unknown), 400, "unknown-log")
    log_id, _, position = saved.headers["consistency-token"].rpartition("-")
    beyond = {"Consistency-Token": f"{log_id}-{int(position) + 1}"}
    problem(await shop.queries.get("/products/LANTERN", headers=beyond), 400, "token-beyond-log")


async def test_the_status_measures_each_read_model_against_the_head_of_its_feed(shop: Shop) -> None:
    for _ in range(2):
        await place(shop.commands)
    ordered = await place(shop.commands)
    saved = await save(shop.commands, category=None)
    await shop.get("/products/LANTERN", saved, ordered)
    await shop.get(f"/orders/{ordered.json()['aggregate_id']}", ordered)
    status = await shop.queries.get("/projections")
    heads = {one["name"]: (one["head"], one["position_lag"], one["rebuilding"]) for one in status.json()["projections"]}
    assert heads["orders"] == (3, 0, False)
    assert heads["products"] == heads["categories"] == (1, 0, False)
    assert len(status.headers["consistency-token"].split(", ")) == 2


@pytest.mark.promise("rebuilds", "Read models of the catalogue are rebuilt beside their live generation, and verified")
async def test_cards_and_the_tree_are_rebuilt_and_verified(shop: Shop) -> None:
    for number in range(12):
        await save(shop.commands, f"P{number % 5}", category=f"c{number % 3}/d{number % 4}", tags=[f"t{number}"])
        await review(shop.commands, f"P{number % 5}", stars=1 + number % 5)
    last = await review(shop.commands, "P0", stars=1)
    before = (await shop.get("/products", last, limit=100)).json()
    settings = settings_of(shop.settings, "orders_projector")
    for name, version in (("products", "9"), ("categories", "9")):
        async with open_admin(settings, PROJECTIONS[name]) as admin:
            await admin.rebuild()
            await admin.verify()
            keys = [key async for key in admin.redis.scan_iter(match=f"{{{name}.0}}.2:doc:*")]
            assert keys
            await admin.redis.hset(keys[0], "version", version)
            with pytest.raises(CommandFailed, match="1 differences"):
                await admin.verify()
    last = await save(shop.commands, "P0", category="c0/new")
    after = (await shop.get("/products", last, limit=100)).json()
    assert [one["product_id"] for one in after["products"]] == [one["product_id"] for one in before["products"]]
    assert after["products"][-1]["category"] == "c0/new"
    status = (await shop.queries.get("/projections")).json()["projections"]
    assert {one["name"]: one["generation"] for one in status if one["name"] in OF_CATALOGUE} == {
        "products": 2,
        "categories": 2,
    }
