"""GET /reports/revenue: sums by day, currency and status, as fresh as its reader asks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from shared.aggregates.order import OrderLine
from shared.eventstore.token import ConsistencyToken
from shared.settings import Settings
from tests.orders import MUG, TOTAL, cancelled, paid, placed
from tests.query_service.reads import get, token_now
from tests.recording import Recorder
from tests.running import free_ports, running_query_service

JANUARY = "/reports/revenue?from=2011-01-01&to=2011-01-31"


def day(number: int) -> datetime:
    return datetime(2011, 1, number, 23, 59, tzinfo=UTC)


def line(on: str, status: str, orders: int, placed: int | str, **others: Any) -> dict[str, Any]:
    zeros = {"currency": "GBP", "currency_exponent": 2, "paid": 0, "cancelled": 0}
    return {**zeros, "day": on, "status": status, "orders": orders, "placed": placed, **others}


async def test_orders_count_under_day_currency_and_present_status(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    await recorder.record("1", placed(), occurred_at=day(4))
    await recorder.record("2", placed(), paid(), occurred_at=day(4))
    await recorder.record("3", placed(MUG), occurred_at=day(4))
    await recorder.record("4", placed(MUG, currency="EUR"), occurred_at=day(4))
    await recorder.record("5", placed(MUG), paid(900), cancelled(900), occurred_at=day(5))
    await recorder.record("6", placed(), occurred_at=datetime(2011, 2, 1, tzinfo=UTC))

    report = (await get(queries, JANUARY, recorder)).json()

    assert report == {
        "from": "2011-01-01",
        "to": "2011-01-31",
        "currency": None,
        "lines": [
            line("2011-01-04", "PENDING", 1, 900, currency="EUR"),
            line("2011-01-04", "CONFIRMED", 1, TOTAL, paid=TOTAL),
            line("2011-01-04", "PENDING", 2, TOTAL + 900),
            line("2011-01-05", "CANCELLED", 1, 900, paid=900, cancelled=900),
        ],
    }


@pytest.mark.promise("queries", "Amounts that a browser would round are answered as strings of digits")
async def test_sums_beyond_2_to_the_53_are_strings_of_digits(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    dearest, most = OrderLine("GOLD", 1, 2**53 - 1), 2**53 - 1
    await recorder.record("1", placed(dearest, currency="IDR"), occurred_at=day(4))
    await recorder.record("2", placed(dearest, currency="KWD"), paid(most), cancelled(most), occurred_at=day(4))
    await recorder.record("3", placed(dearest, currency="KWD"), paid(most), cancelled(most), occurred_at=day(4))

    report = (await get(queries, JANUARY, recorder)).json()

    twice = str(2 * most)
    assert report["lines"] == [
        line("2011-01-04", "PENDING", 1, most, currency="IDR"),
        line(
            "2011-01-04",
            "CANCELLED",
            2,
            twice,
            currency="KWD",
            currency_exponent=3,
            paid=twice,
            cancelled=twice,
        ),
    ]


async def test_one_currency_may_be_asked_for(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    await recorder.record("1", placed(MUG), occurred_at=day(4))
    await recorder.record("2", placed(MUG, currency="EUR"), occurred_at=day(4))

    report = (await get(queries, f"{JANUARY}&currency=EUR", recorder)).json()

    assert report["lines"] == [line("2011-01-04", "PENDING", 1, 900, currency="EUR")]


async def test_a_token_waits_for_what_it_names_and_the_answer_carries_one(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    for number in range(1, 20):
        await recorder.record(str(number), placed(MUG), occurred_at=day(4))
        answer = await get(queries, JANUARY, recorder)
        assert answer.json()["lines"][0]["orders"] == number
        assert answer.headers["consistency-token"] == await token_now(recorder)


async def test_many_waiting_queries_are_all_answered(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    await recorder.record("1", placed(MUG), occurred_at=day(4))

    headers = {"Consistency-Token": await token_now(recorder)}
    answers = await asyncio.gather(*(queries.get(JANUARY, headers=headers) for _ in range(50)))

    assert [answer.json()["lines"][0]["orders"] for answer in answers] == [1] * 50


async def test_a_token_that_is_not_reached_is_503(lagging: httpx.AsyncClient, recorder: Recorder) -> None:
    await recorder.record("1", placed(MUG), occurred_at=day(4))

    headers = {"Consistency-Token": await token_now(recorder), "Prefer": "wait=0"}
    answer = await lagging.get(JANUARY, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (503, "projection-lagging")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_token_of_another_log_is_refused(queries: httpx.AsyncClient) -> None:
    answer = await queries.get(JANUARY, headers={"Consistency-Token": ConsistencyToken(uuid4(), 1).encode()})

    assert (answer.status_code, answer.json()["code"]) == (400, "unknown-log")


async def test_a_client_that_has_the_current_report_gets_304(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    await recorder.record("1", placed(), occurred_at=day(4))
    etag = (await get(queries, JANUARY, recorder)).headers["etag"]

    assert (await get(queries, JANUARY, recorder, if_none_match=etag)).status_code == 304
    await recorder.record("2", placed(), occurred_at=day(4))
    assert (await get(queries, JANUARY, recorder, if_none_match=etag)).status_code == 200


async def test_what_is_no_bounded_range_of_days_is_422(queries_alone: httpx.AsyncClient) -> None:
    for query in (
        "",
        "from=2011-01-01",
        "from=2011-01-02&to=2011-01-01",
        "from=2011-01-01&to=2012-01-02",
        "from=0&to=1",
        "from=2011-01-01T00:00:00Z&to=2011-01-02",
        "from=2011-02-29&to=2011-03-01",
        "from=2011-01-01&to=2011-01-02&currency=gbp",
    ):
        answer = await queries_alone.get(f"/reports/revenue?{query}")

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), query
        assert answer.json()["errors"][0]["pointer"], query


async def test_the_longest_range_is_a_leap_year(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    answer = await get(queries, "/reports/revenue?from=2012-01-01&to=2012-12-31", recorder)

    assert answer.json()["lines"] == []


async def test_before_there_is_a_read_model_there_is_no_report(queries_alone: httpx.AsyncClient) -> None:
    answer = await queries_alone.get(JANUARY)

    assert (answer.status_code, answer.json()["code"]) == (503, "projection-rebuilding")


async def test_without_postgresql_reports_are_503(settings: Settings) -> None:
    (nobody_there,) = free_ports(1)
    async with running_query_service(settings, database_url=f"postgresql://x:y@127.0.0.1:{nobody_there}/x") as client:
        answer = await client.get(JANUARY)

    assert (answer.status_code, answer.json()["code"]) == (503, "read-model-unavailable")
    assert "PostgreSQL" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) >= 1


async def test_reports_recover_when_their_sessions_are_lost(
    queries: httpx.AsyncClient, recorder: Recorder, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await recorder.record("1", placed(), occurred_at=day(4))
    assert (await get(queries, JANUARY, recorder)).status_code == 200
    await connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'orders-%'"
    )

    await recorder.record("2", placed(), occurred_at=day(4))
    answers = [await get(queries, JANUARY, recorder, prefer="wait=10") for _ in range(3)]

    assert answers[-1].json()["lines"][0]["orders"] == 2
