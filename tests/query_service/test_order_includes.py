"""An order with its customer and the cards of its products, in one answer."""

from __future__ import annotations

from typing import Any, TypeAlias

import httpx
import pytest

from tests.catalogue import save
from tests.customers import PERSON, erase, register
from tests.given_when_then import problem
from tests.orders import place
from tests.running import eventually

Shop: TypeAlias = tuple[httpx.AsyncClient, httpx.AsyncClient]

WITH_CUSTOMER = {"include": "customer"}


async def with_customer(queries: httpx.AsyncClient, token: str) -> Any:
    answer = await queries.get("/orders/1", params=WITH_CUSTOMER, headers={"Consistency-Token": token})
    assert answer.status_code == 200, answer.text
    return answer.json()["customer"]


@pytest.mark.promise("queries", "An order is answered together with its customer")
async def test_an_order_comes_with_its_customer(shop: Shop) -> None:
    commands, queries = shop
    token = (await place(commands, order_id="1", customer_id="ada")).json()["consistency_token"]
    assert await with_customer(queries, token) is None
    token = await register(commands, "ada")
    assert await with_customer(queries, token) == {"name": PERSON["name"], "email": PERSON["email"]}
    answer = await queries.get("/orders/1", params=WITH_CUSTOMER, headers={"Consistency-Token": token})
    plain = await queries.get("/orders/1", headers={"Consistency-Token": token})
    assert {name: value for name, value in answer.json().items() if name != "customer"} == plain.json()
    same = await queries.get("/orders/1", params=WITH_CUSTOMER, headers={"If-None-Match": answer.headers["ETag"]})
    assert same.status_code == 304
    token = await erase(commands, "ada")
    await eventually(lambda: _shows_none(queries, token))


async def _shows_none(queries: httpx.AsyncClient, token: str) -> bool:
    return await with_customer(queries, token) is None


@pytest.mark.promise("queries", "An order is answered together with its customer and the cards of its products")
async def test_an_order_comes_with_its_customer_and_the_cards_of_its_products(shop: Shop) -> None:
    commands, queries = shop
    await register(commands, "ada")
    await save(commands, "NAVY MUG")
    saved = await save(commands, "PAN", unit_price=1, tags=[])
    items = [{"product_id": one, "quantity": 1, "unit_price": 1} for one in ("PAN", "NAVY MUG", "UNKNOWN", "PAN")]
    items = [{**item, "line_id": str(number)} for number, item in enumerate(items)]
    placed = await place(commands, order_id="1", customer_id="ada", items=items)
    tokens = [one.headers["consistency-token"] for one in (saved, placed)]
    headers = {"Consistency-Token": ", ".join(tokens), "Prefer": "wait=20"}

    answer = await queries.get("/orders/1", params={"include": "customer,products"}, headers=headers)

    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert shown["customer"] == {"name": PERSON["name"], "email": PERSON["email"]}
    assert [(card["product_id"], card["unit_price"]) for card in shown["products"]] == [("PAN", 1), ("NAVY MUG", 339)]
    given = {token.partition("-")[0] for token in answer.headers["consistency-token"].split(", ")}
    assert given == {token.partition("-")[0] for token in tokens}
    alone = await queries.get("/orders/1", params={"include": "products"}, headers=headers)
    assert alone.json()["products"] == shown["products"]
    assert "customer" not in alone.json()
    same = await queries.get(
        "/orders/1", params={"include": "products"}, headers={"If-None-Match": alone.headers["ETag"]}
    )
    assert same.status_code == 304


@pytest.mark.parametrize("query", ["include=stock", "include=customer&as_of=2026-01-01T00:00:00Z", "include="])
async def test_what_cannot_be_included_is_refused(queries: httpx.AsyncClient, query: str) -> None:
    [error] = problem(await queries.get(f"/orders/1?{query}"), 422, "invalid-request")["errors"]
    assert error["pointer"] == "query/include"
