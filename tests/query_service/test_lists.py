"""GET /orders and GET /customers/{customer_id}/orders."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from random import Random

import httpx
import pytest

from shared.aggregates.order import OrderCancelled, OrderLine
from shared.eventstore.token import ConsistencyToken
from tests.orders import LAMP, paid, placed
from tests.query_service.reads import get, pages, token_now
from tests.recording import Recorder

NOON = datetime(2011, 1, 4, 12, 0, tzinfo=UTC)


async def test_a_summary_is_the_order_without_its_details(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    await recorder.record("42", placed(LAMP), paid(), occurred_at=NOON)

    answer = await get(queries, "/orders", recorder)

    assert answer.json() == {
        "orders": [
            {
                "order_id": "42",
                "customer_id": "alice",
                "status": "CONFIRMED",
                "currency": "GBP",
                "currency_exponent": 2,
                "total_amount": 2_599,
                "item_count": 1,
                "placed_at": "2011-01-04T12:00:00Z",
                "last_event_at": "2011-01-04T12:00:00Z",
                "version": 2,
            }
        ],
        "next_cursor": None,
    }


async def test_orders_come_newest_first_and_by_id_where_times_are_equal(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    await recorder.record("old", placed(), occurred_at=NOON)
    for order_id in ("2", "10", "1"):
        await recorder.record(order_id, placed(), occurred_at=NOON + timedelta(microseconds=1))
    await recorder.record("older", placed(), occurred_at=datetime(1969, 1, 1, tzinfo=UTC))

    assert await pages(queries, "/orders", recorder) == [["2", "10", "1", "old", "older"]]


async def test_a_list_holds_the_orders_of_the_customer_and_status_asked_for(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    await recorder.record("a1", placed(customer_id="alice"), occurred_at=NOON)
    await recorder.record("a2", placed(customer_id="alice"), paid(), occurred_at=NOON)
    await recorder.record("b1", placed(customer_id="bob"), paid(), occurred_at=NOON)
    await recorder.record("b2", placed(customer_id="bob"), OrderCancelled("mistake", 0), occurred_at=NOON)

    assert await pages(queries, "/customers/alice/orders", recorder) == [["a2", "a1"]]
    assert await pages(queries, "/customers/bob/orders", recorder, status="CONFIRMED") == [["b1"]]
    assert await pages(queries, "/orders", recorder, status="CONFIRMED") == [["b1", "a2"]]
    assert await pages(queries, "/orders", recorder, status="DELIVERED") == [[]]


async def test_a_customer_without_orders_has_an_empty_list(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    answer = await get(queries, "/customers/nobody/orders", recorder)

    assert (answer.status_code, answer.json()) == (200, {"orders": [], "next_cursor": None})


async def test_pages_together_hold_every_order_once_in_order(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    for number in range(6):
        await recorder.record(str(number), placed(), occurred_at=NOON + timedelta(seconds=number // 2))

    for limit in (1, 2, 3, 6, 100):
        found = await pages(queries, "/orders", recorder, limit=limit)

        assert list(chain(*found)) == ["5", "4", "3", "2", "1", "0"]
        assert len(found) == -(-6 // limit)


async def test_without_a_limit_a_page_holds_20(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    for number in range(21):
        await recorder.record(str(number), placed())

    assert [len(page) for page in await pages(queries, "/orders", recorder)] == [20, 1]


async def test_the_next_page_keeps_the_parameters(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    for order_id in ("1", "2", "3"):
        await recorder.record(order_id, placed())
    await recorder.record("4", placed(), paid())

    answer = await get(queries, "/customers/alice/orders?status=PENDING&limit=1", recorder)
    following = httpx.URL(answer.links["next"]["url"])

    assert following.path == "/customers/alice/orders"
    assert dict(following.params) == {"status": "PENDING", "limit": "1", "cursor": answer.json()["next_cursor"]}
    assert await pages(queries, "/customers/alice/orders", recorder, status="PENDING", limit=1) == [["3"], ["2"], ["1"]]


@pytest.mark.promise("queries", "Pages neither repeat nor miss an order while new ones arrive")
async def test_pages_neither_repeat_nor_miss_an_order_while_new_ones_arrive(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    """New orders come with times before, between and after those that were there, and many at the same instant."""
    random = Random(42)
    there = [f"there-{number}" for number in range(60)]
    for order_id in there:
        await recorder.record(order_id, placed(), occurred_at=NOON + timedelta(seconds=random.randrange(10)))
    before = await pages(queries, "/orders", recorder, limit=100)
    numbers = count(1)

    async def order_another() -> None:
        at = NOON + timedelta(seconds=random.randrange(-2, 12))
        await recorder.record(f"new-{next(numbers)}", placed(), occurred_at=at)

    for limit in (1, 3, 7, 20):
        found, shown, url = [], [], f"/orders?limit={limit}"
        while url:
            # What came while the last page was read is there when this one is.
            token = {"Consistency-Token": await token_now(recorder)}
            answer, _ = await asyncio.gather(queries.get(url, headers=token), order_another())
            found += [order["order_id"] for order in answer.json()["orders"]]
            shown.append(ConsistencyToken.decode(answer.headers["consistency-token"]).position)
            url = answer.links.get("next", {}).get("url", "")
        assert len(found) == len(set(found))
        assert [order_id for order_id in found if order_id in there] == before[0]
        assert shown[-1] - shown[0] >= len(shown) - 2 > 0  # they did arrive meanwhile


async def test_a_parameter_that_is_not_acceptable_is_refused(queries_alone: httpx.AsyncClient) -> None:
    for path in ("/orders", "/customers/alice/orders"):
        for parameter in ("limit=0", "limit=101", "limit=ten", "status=LOST", "status=pending"):
            answer = await queries_alone.get(f"{path}?{parameter}")

            assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
            assert [error["pointer"] for error in answer.json()["errors"]] == [f"query/{parameter.split('=')[0]}"]


async def test_a_cursor_that_is_not_ours_is_refused(queries_alone: httpx.AsyncClient) -> None:
    answer = await queries_alone.get("/orders?cursor=x")

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed-cursor")


async def test_a_client_that_has_the_current_page_gets_304(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    await recorder.record("1", placed())
    etag = (await get(queries, "/orders", recorder)).headers["etag"]

    assert (await get(queries, "/orders", recorder, If_None_Match=etag)).status_code == 304
    await recorder.record("1", paid())
    assert (await get(queries, "/orders", recorder, If_None_Match=etag)).status_code == 200


class TestOrdersByTheirIds:
    @pytest.mark.promise("queries", "Up to 100 orders are read whole, in one request")
    async def test_are_whole_and_in_the_order_of_the_ids(self, queries: httpx.AsyncClient, recorder: Recorder) -> None:
        for order_id in ("1", "2", "3"):
            await recorder.record(order_id, placed(LAMP), paid(), occurred_at=NOON)

        answer = await get(queries, "/orders?ids=3,no-such,1,3", recorder)

        one, three = [(await queries.get(f"/orders/{order_id}")).json() for order_id in "13"]
        assert answer.json() == {"orders": [three, one]}
        again = await get(queries, "/orders?ids=3,no-such,1,3", recorder, If_None_Match=answer.headers["etag"])
        assert (again.status_code, again.content) == (304, b"")

    async def test_are_read_as_of_the_token(self, queries: httpx.AsyncClient, recorder: Recorder) -> None:
        for order_id in map(str, range(100)):
            await recorder.record(order_id, placed())
        ids = ",".join(map(str, range(100)))
        answer = await get(queries, f"/orders?ids={ids}", recorder)
        assert len(answer.json()["orders"]) == 100
        assert answer.headers["consistency-token"] == await token_now(recorder)

    async def test_that_cannot_be_named_so(self, queries: httpx.AsyncClient) -> None:
        for query in (
            "ids=",
            "ids=1,,2",
            "ids=a%20b",
            "ids=" + ",".join(map(str, range(101))),
            "ids=1&limit=20",
            "ids=1&status=PENDING",
            "ids=1&cursor=x",
        ):
            answer = await queries.get(f"/orders?{query}")
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), query
            assert answer.json()["errors"][0]["pointer"].startswith("query"), query

    async def test_that_would_make_too_large_an_answer_are_refused(
        self, queries: httpx.AsyncClient, recorder: Recorder
    ) -> None:
        lines = [OrderLine(f"P{number}", 1, 1, "N" * 400) for number in range(2_000)]
        for order_id in map(str, range(12)):
            await recorder.record(order_id, placed(*lines))
        answer = await get(queries, "/orders?ids=" + ",".join(map(str, range(12))), recorder)
        assert (answer.status_code, answer.json()["code"]) == (422, "answer-too-large")
        assert (await queries.get("/orders?ids=1,2")).status_code == 200
