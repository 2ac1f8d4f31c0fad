"""A page of another origin, in a browser: it places, reads, lists, follows, and is told what was refused and why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.json import encode as encode_json

from shared.settings import Settings
from tests.browser.origin import other_origin
from tests.orders import order_body
from tests.running import running_stack

if TYPE_CHECKING:
    from playwright.async_api import Page

# (status, body, headers) as the page sees them.
CALL = """async ([url, method, headers, body]) => {
  const answer = await fetch(url, { method, headers, body });
  const text = await answer.text();
  return [answer.status, text && JSON.parse(text), Object.fromEntries(answer.headers)];
}"""
FOLLOW = """(url) => new Promise((resolve, reject) => {
  const events = new EventSource(url);
  events.onmessage = ({ data }) => { events.close(); resolve(JSON.parse(data)); };
  events.onerror = () => reject(new Error("cut off"));
})"""
JSON = {"Content-Type": "application/json"}


def encode(body: object) -> str:
    return encode_json(body).decode()


class Shop:
    """The page, and the addresses of the services that it calls."""

    def __init__(self, page: Page, settings: Settings) -> None:
        self.page = page
        self.commands = f"http://127.0.0.1:{settings.command_port}"
        self.queries = f"http://127.0.0.1:{settings.query_port}"

    async def call(self, url: str, method: str = "GET", body: str | None = None, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.page.evaluate(CALL, [url, method, named | (JSON if body is not None else {}), body])


@pytest.fixture
async def shop(settings: Settings, page: Page) -> AsyncIterator[Shop]:
    allowing = settings.model_copy(update={"cors_origins": "http://localhost:*"})
    async with running_stack(allowing), other_origin(allowing) as origin:
        await page.goto(origin)
        yield Shop(page, allowing)


@pytest.mark.promise("browsers", "A page of another origin places, reads, lists and follows orders")
async def test_a_page_of_another_origin_works_with_orders(shop: Shop) -> None:
    body = encode(order_body(order_id="1", customer_id="alice"))
    status, acknowledged, headers = await shop.call(f"{shop.commands}/orders", "POST", body, Idempotency_Key="once")
    assert (status, acknowledged["version"]) == (201, 1)
    assert (headers["etag"], headers["location"]) == ('"1"', "/orders/1")
    _, again, headers = await shop.call(f"{shop.commands}/orders", "POST", body, Idempotency_Key="once")
    assert (again, headers["idempotent-replayed"]) == (acknowledged, "true")

    token = acknowledged["consistency_token"]
    status, order, headers = await shop.call(f"{shop.queries}/orders/1", Consistency_Token=token, Prefer="wait=5")
    assert (status, order["status"]) == (200, "PENDING")
    assert headers["preference-applied"] == "wait=5"
    assert headers["projection-lag"].isdigit()
    status, _, _ = await shop.call(f"{shop.queries}/orders/1", If_None_Match=headers["etag"])
    assert status == 304

    second = encode(order_body(order_id="2", customer_id="alice"))
    _, acknowledged, _ = await shop.call(f"{shop.commands}/orders", "POST", second)
    listing = f"{shop.queries}/customers/alice/orders?limit=1"
    status, listed, headers = await shop.call(listing, Consistency_Token=acknowledged["consistency_token"])
    assert (status, len(listed["orders"])) == (200, 1)
    assert f"cursor={listed['next_cursor']}" in headers["link"]

    event = await shop.page.evaluate(FOLLOW, f"{shop.queries}/customers/alice/orders/events?after=0")
    assert (event["event_type"], event["order_id"]) == ("OrderPlaced", "1")


@pytest.mark.promise("browsers", "A page of another origin reads every error, and what to do about it")
async def test_a_page_of_another_origin_reads_errors_of_every_kind(shop: Shop) -> None:
    await shop.call(f"{shop.commands}/orders", "POST", encode(order_body(order_id="1")))
    address = f"{shop.commands}/orders/1/shipping-address"
    moved = encode({"shipping_address_id": "elsewhere"})
    for url, method, body, headers, status, code in (
        (f"{shop.queries}/orders/no-such", "GET", None, {}, 404, "order-not-found"),
        (f"{shop.queries}/nowhere", "GET", None, {}, 404, "no-such-route"),
        (f"{shop.queries}/orders", "PUT", "{}", {}, 405, "method-not-allowed"),
        (f"{shop.queries}/orders?limit=0", "GET", None, {}, 422, "invalid-request"),
        (f"{shop.queries}/orders", "GET", None, {"Consistency_Token": "x"}, 400, "malformed-token"),
        (f"{shop.commands}/orders", "POST", "{}", {}, 422, "invalid-request"),
        (f"{shop.commands}/orders/1/shipment", "POST", '{"tracking_number": "1"}', {}, 409, "order-not-confirmed"),
        (address, "PUT", moved, {"If_Match": '"1"'}, 200, None),
        (address, "PUT", moved, {"If_Match": '"1"'}, 412, "stale-version"),
        (f"{shop.commands}/orders", "POST", " " * 600_000, {}, 413, "body-too-large"),
        (f"{shop.queries}/orders", "GET", None, {"X_Long": "a" * 9_000}, 431, "headers-too-large"),
    ):
        answered, document, answer_headers = await shop.call(url, method, body, **headers)
        assert (answered, document.get("code")) == (status, code), document
        if status not in (200, 431):
            assert answer_headers["x-correlation-id"]
