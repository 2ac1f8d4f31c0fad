"""Orders and the catalogue: products that it must know, and the prices of customers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shared.settings import Settings
from tests.catalogue import save
from tests.given_when_then import problem
from tests.identity.issuer import AUDIENCE, ISSUER, Issuer, bearer
from tests.orders import order_body
from tests.running import running_command_service, settings_for


def order_of(*product_ids: str, unit_price: int = 339, **changes: Any) -> dict[str, Any]:
    items = [{"product_id": one, "quantity": 1, "unit_price": unit_price} for one in product_ids]
    return order_body(items=items, currency="GBP", **changes)


@pytest.mark.promise("commands", "With UNKNOWN_PRODUCTS=refuse, orders are of products of the catalogue alone")
async def test_an_order_is_of_products_that_the_catalogue_has(database_url: str, redis_url: str) -> None:
    settings = settings_for(database_url, redis_url, unknown_products="refuse")
    async with running_command_service(settings) as url, httpx.AsyncClient(base_url=url, timeout=30) as commands:
        problem(await commands.post("/orders", json=order_of("MUG")), 404, "product-not-found")
        await save(commands, "MUG")
        refused = problem(await commands.post("/orders", json=order_of("MUG", "PAN")), 404, "product-not-found")
        assert refused["product_id"] == "PAN"
        key = {"Idempotency-Key": "k"}
        body = order_of("MUG", unit_price=1, order_id="1")
        placed = await commands.post("/orders", json=body, headers=key)
        assert placed.status_code == 201, "staff name their own prices"
        line = {"product_id": "PAN", "quantity": 1, "unit_price": 1}
        problem(await commands.post("/orders/1/items", json=line), 404, "product-not-found")
        assert (await commands.delete("/products/MUG")).status_code == 200
        problem(await commands.post("/orders", json=order_of("MUG")), 404, "product-not-found")
        again = await commands.post("/orders", json=body, headers=key)
        assert (again.status_code, again.json()) == (201, placed.json()), "a repeated request is not judged anew"


@pytest.fixture
async def shop(
    database_url: str, redis_url: str, issuer: Issuer
) -> AsyncIterator[tuple[httpx.AsyncClient, dict[str, str], dict[str, str]]]:
    """(commands, headers of staff, headers of a customer)."""
    settings: Settings = settings_for(
        database_url, redis_url, auth="jwt", auth_issuer=ISSUER, auth_audience=AUDIENCE, auth_jwks=str(issuer.file)
    )
    staff, customer = issuer.token("staff"), issuer.token("customer", customer_id="17850")
    async with running_command_service(settings) as url, httpx.AsyncClient(base_url=url, timeout=30) as commands:
        yield commands, bearer(staff), bearer(customer)


@pytest.fixture
def issuer(tmp_path: Any) -> Issuer:
    return Issuer(tmp_path / "keys.json")


@pytest.mark.promise("security", "A customer cannot bring another price than the catalogue's")
async def test_a_customers_price_is_the_catalogues(
    shop: tuple[httpx.AsyncClient, dict[str, str], dict[str, str]],
) -> None:
    commands, staff, customer = shop
    product = {"name": "MUG", "unit_price": 339, "currency": "GBP"}
    assert (await commands.put("/products/MUG", json=product, headers=staff)).status_code == 201

    async def place(**body: Any) -> httpx.Response:
        return await commands.post("/orders", json=order_of("MUG", customer_id="17850", **body), headers=customer)

    refused = problem(await place(unit_price=338), 409, "price-differs")
    assert refused["items"] == [{"product_id": "MUG", "unit_price": 339, "currency": "GBP"}]
    placed = await place(order_id="1")
    assert placed.status_code == 201, placed.text
    in_yen = order_of("MUG", customer_id="17850") | {"currency": "JPY"}
    problem(await commands.post("/orders", json=in_yen, headers=customer), 409, "price-differs")
    line = {"product_id": "MUG", "quantity": 1, "unit_price": 1}
    problem(await commands.post("/orders/1/items", json=line, headers=customer), 409, "price-differs")
    assert (await commands.post("/orders/1/items", json={**line, "unit_price": 339}, headers=customer)).is_success
    assert (await commands.post("/orders/1/items", json=line, headers=staff)).is_success
    unknown = order_of("PAN", unit_price=1, customer_id="17850")
    assert (await commands.post("/orders", json=unknown, headers=customer)).is_success, "the catalogue has no price"
    discount = [{"kind": "discount", "amount": -300}]
    problem(await place(charges=discount), 409, "price-differs")
    unknown = order_of("PAN", unit_price=300, customer_id="17850", order_id="2", charges=discount)
    assert (await commands.post("/orders", json=unknown, headers=customer)).is_success
    added = await commands.post("/orders/2/items", json={**line, "unit_price": 339}, headers=customer)
    problem(added, 409, "price-differs")
    assert (await commands.delete("/products/MUG", headers=staff)).is_success
    problem(await place(), 404, "product-not-found")
