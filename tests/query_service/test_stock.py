"""GET /products/{product_id}/stock: with the token of an order that reserved it, and at an earlier time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from tests.given_when_then import problem
from tests.independent_folds import assert_read_models_equal_the_log
from tests.orders import place
from tests.running import clients_of, fresh_database, running_stack, settings_for


@pytest_asyncio.fixture
async def stack(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> AsyncIterator[tuple[httpx.AsyncClient, ...]]:
    async with fresh_database(postgres.url) as database_url:
        settings = settings_for(database_url, valkey.url)
        async with running_stack(settings), clients_of(settings) as clients:
            yield clients
            await assert_read_models_equal_the_log(database_url, valkey.url, read_models=["stock", "orders"])


async def test_stock_is_shown_with_the_token_of_an_order_and_as_it_was(stack: tuple[httpx.AsyncClient, ...]) -> None:
    commands, queries = stack
    path = "/products/NAVY MUG/stock"
    body = {"quantity": 5, "occurred_at": "2026-01-01T12:00:00Z"}
    assert (await commands.post(f"{path}/receipts", json=body)).status_code == 200
    items = [{"product_id": "NAVY MUG", "quantity": 2, "unit_price": 450}]
    placed = await place(commands, items=items, occurred_at="2026-01-02T12:00:00Z")
    headers = {"Consistency-Token": placed.headers["consistency-token"], "Prefer": "wait=20"}

    shown = await queries.get(path, headers=headers)

    assert list(shown.json().items()) == [
        ("product_id", "NAVY MUG"),
        ("on_hand", 5),
        ("reserved", 2),
        ("available", 3),
        ("sold", 0),
        ("last_event_at", "2026-01-02T12:00:00Z"),
        ("version", 2),
    ]
    assert shown.headers["etag"]
    before = (await queries.get(path, params={"as_of": "2026-01-02T11:00:00Z"}, headers=headers)).json()
    assert (before["reserved"], before["available"], before["version"]) == (0, 5, 1)
    problem(await queries.get("/products/PEN/stock", headers=headers), 404, "stock-not-found")
