"""Each error of a 422 has what a form needs to show it in its own words: a pointer, a stable code and parameters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shared.aggregates.order import OrderStatus
from shared.http.form_errors import form_error
from shared.settings import Settings
from tests.given_when_then import Orders, problem
from tests.orders import order_body
from tests.running import running_query_service

MUG = {"product_id": "MUG", "quantity": 1, "unit_price": 1}


def line(**changes: Any) -> dict[str, Any]:
    return order_body(items=[{**MUG, **changes}])


@pytest.mark.promise("commands", "Each error of a 422 has a pointer, a stable code, its parameters and a sentence")
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("body", "pointer", "code", "params"),
    [
        ({name: value for name, value in order_body().items() if name != "currency"}, "#/currency", "required", {}),
        (order_body(coupon="X"), "#/coupon", "unknown-field", {}),
        (order_body(customer_id=7), "#/customer_id", "not-a-string", {}),
        (order_body(customer_id=""), "#/customer_id", "too-short", {"minimum": 1}),
        (order_body(customer_id="a" * 65), "#/customer_id", "too-long", {"maximum": 64}),
        (order_body(customer_id="a b"), "#/customer_id", "not-an-id", {}),
        (order_body(currency="XXX"), "#/currency", "not-a-currency", {}),
        (order_body(currency="gbp"), "#/currency", "not-a-currency", {}),
        (order_body(occurred_at="yesterday"), "#/occurred_at", "not-a-time", {}),
        (order_body(occurred_at="2010-13-01T08:26:00Z"), "#/occurred_at", "not-a-time", {}),
        (order_body(occurred_at="0001-01-01T00:00:00+10:00"), "#/occurred_at", "time-out-of-range", {}),
        (order_body(items=[]), "#/items", "too-few", {"minimum": 1}),
        (order_body(items=[MUG] * 2_001), "#/items", "too-many", {"maximum": 2_000}),
        (order_body(items={}), "#/items", "not-a-list", {}),
        (order_body(items=[1]), "#/items/0", "not-an-object", {}),
        (line(quantity=0), "#/items/0/quantity", "too-small", {"minimum": 1}),
        (line(quantity=1_000_001), "#/items/0/quantity", "too-large", {"maximum": 1_000_000}),
        (line(unit_price=10**12 + 1), "#/items/0/unit_price", "too-large", {"maximum": 10**12}),
        (line(quantity="1"), "#/items/0/quantity", "not-an-integer", {}),
        (line(quantity=1.5), "#/items/0/quantity", "not-an-integer", {}),
        (line(product_id=" a"), "#/items/0/product_id", "not-a-product-id", {}),
        (line(product_name="a\nb"), "#/items/0/product_name", "not-a-line", {}),
    ],
    ids=str,
)
async def test_an_error_has_a_code_and_parameters(
    orders: Orders, body: dict[str, Any], pointer: str, code: str, params: dict[str, Any]
) -> None:
    answer = problem(await orders.client.post("/orders", json=body), 422, "invalid-request")
    [error] = answer["errors"]
    assert (error["pointer"], error["code"], error["params"]) == (pointer, code, params)
    assert not {*"^[](){}\\$"} & {*error["detail"]}
    assert all(str(value) in error["detail"] for value in params.values())
    assert " 1 characters" not in error["detail"]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_error_in_the_path_has_them_too(orders: Orders) -> None:
    answer = problem(await orders.client.post("/orders/a%20b/delivery", json={}), 422, "invalid-request")
    [error] = answer["errors"]
    assert (error["pointer"], error["code"]) == ("path/order_id", "not-an-id")


async def test_an_error_of_a_parameter_has_them_too(queries: httpx.AsyncClient) -> None:
    for query, code, params in [
        ("orders?limit=0", "too-small", {"minimum": 1}),
        ("orders?limit=x", "not-an-integer", {}),
        (
            "orders?status=LOST",
            "not-allowed",
            {"allowed": [*OrderStatus]},
        ),
        ("reports/revenue?from=2011-01-01&to=2011-01-32", "not-a-date", {}),
        ("reports/revenue?from=2011-01-01&to=2013-01-01", "bad-range", {"maximum": 366}),
        ("orders/1?as_of=now", "not-a-time", {}),
    ]:
        [error] = problem(await queries.get(f"/{query}"), 422, "invalid-request")["errors"]
        assert (error["code"], error["params"]) == (code, params), query


def test_an_error_that_has_no_text_yet_shows_nothing_of_its_rule() -> None:
    unnamed = {
        "type": "string_pattern_mismatch",
        "loc": ("body", "a"),
        "ctx": {"pattern": "^secret$"},
        "msg": "^secret$",
    }
    for error in (unnamed, {"type": "unheard_of", "loc": ("body",), "msg": "^secret$"}):
        assert form_error(error).code == "invalid"
        assert "secret" not in form_error(error).detail


@pytest.fixture
async def queries(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with running_query_service(settings) as queries:
        yield queries
