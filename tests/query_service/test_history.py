"""GET /orders/{order_id}/history."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import uuid4

import httpx
import pytest

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from shared.eventstore import log as event_log
from shared.eventstore.token import ConsistencyToken
from tests.given_when_then import problem
from tests.orders import LAMP, MUG, cancelled, order_body, paid, placed, shipped
from tests.query_service.log_copy import served_from_copy
from tests.query_service.past import Past, past, shared_past
from tests.query_service.reads import etag, token_now
from tests.roles import settings_of
from tests.running import free_ports, running_query_service

__all__ = ["past", "shared_past"]  # fixtures

# One database and one query service for the module: an order of its own is all that a test needs.
pytestmark = pytest.mark.asyncio(loop_scope="module")

BACK_THEN = datetime(2010, 12, 1, 8, 26, tzinfo=UTC)
Shop = tuple[httpx.AsyncClient, httpx.AsyncClient]


async def test_shows_the_events_in_order_as_the_log_has_them(past: Past) -> None:
    await past.recorder.record("another", placed())
    await past.recorder.record(past.order_id, placed(MUG), paid(900), occurred_at=BACK_THEN)

    answer = await past.queries.get(f"{past.path}/history")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert list(document) == ["order_id", "events", "next_after_version"]
    assert (document["order_id"], document["next_after_version"]) == (past.order_id, None)
    rows = [row async for row in event_log.read_stream(past.recorder.connection, f"order-{past.order_id}")]
    for shown, row in zip(document["events"], rows, strict=True):
        assert shown == {
            "version": row.version,
            "position": row.position,
            "event_id": str(row.event_id),
            "event_type": row.event_type,
            "schema_version": row.schema_version,
            "occurred_at": "2010-12-01T08:26:00Z",
            "recorded_at": row.recorded_at.isoformat().replace("+00:00", "Z"),
            "data": json.loads(row.data),
            "metadata": json.loads(row.metadata),
            "hash": row.hash.hex(),
        }
    assert [shown["event_type"] for shown in document["events"]] == ["OrderPlaced", "PaymentConfirmed"]


@pytest.mark.asyncio(loop_scope="function")
async def test_names_the_command_that_led_to_each_event(shop: Shop) -> None:
    commands, queries = shop
    done = await commands.post("/orders", json=order_body(), headers={"X-Correlation-ID": "from-the-web-shop"})

    answer = await queries.get(f"{done.headers['location']}/history")

    [event] = answer.json()["events"]
    assert event["metadata"]["command"] == "PlaceOrder"
    assert event["metadata"]["command_id"] == done.json()["command_id"]
    assert event["metadata"]["correlation_id"] == "from-the-web-shop"
    assert answer.headers["consistency-token"] == done.json()["consistency_token"], "the log is never behind"


async def test_gives_the_json_that_was_stored_to_the_letter(past: Past) -> None:
    text = '{ "shipping_address_id":"caf\\u00e9 \U0001f600",  "later" : [1.0, 1.00, 1e400] }'
    await past.recorder.record(past.order_id, placed())
    await past.recorder.record_raw(past.order_id, "ShippingAddressChanged", 1, text)

    answer = await past.queries.get(f"{past.path}/history")

    assert text.encode() in answer.content


async def test_shows_even_what_this_program_cannot_read(past: Past) -> None:
    await past.recorder.record_raw(past.order_id, "OrderGiftWrapped", 7, '{"paper": "blue"}')

    [event] = (await past.queries.get(f"{past.path}/history")).json()["events"]

    assert (event["event_type"], event["schema_version"], event["data"]) == ("OrderGiftWrapped", 7, {"paper": "blue"})


async def test_comes_in_pages_that_neither_repeat_nor_miss_an_event(past: Past) -> None:
    await past.recorder.record(past.order_id, placed(), paid(), cancelled(3_499), placed(), placed())
    for limit in (1, 2, 4, 5, 1_000):
        versions: list[int] = []
        url = f"{past.path}/history?limit={limit}"
        while url:
            page = await past.queries.get(url)
            events = page.json()["events"]
            assert 1 <= len(events) <= limit
            versions += [event["version"] for event in events]
            more = page.json()["next_after_version"]
            assert more == (versions[-1] if versions[-1] < 5 else None)
            assert ("next" in page.links) == (more is not None)
            url = page.links["next"]["url"] if more else ""
        assert versions == [1, 2, 3, 4, 5]


async def test_after_the_last_version_there_is_an_empty_page(past: Past) -> None:
    await past.recorder.record(past.order_id, placed(), paid())
    for after in (2, 3, 2**31 - 1):
        answer = await past.queries.get(f"{past.path}/history", params={"after_version": after})
        assert answer.json() == {"order_id": past.order_id, "events": [], "next_after_version": None}


async def test_a_client_that_has_it_need_not_fetch_it_again(past: Past) -> None:
    await past.recorder.record(past.order_id, placed(), paid())
    answer = await past.queries.get(f"{past.path}/history")
    token = answer.headers["consistency-token"]
    assert answer.headers["etag"] == etag(2, token, 1)

    again = await past.queries.get(f"{past.path}/history", headers={"If-None-Match": etag(2, token, 1)})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["consistency-token"] == answer.headers["consistency-token"]

    await past.recorder.record(past.order_id, shipped())
    second = await past.queries.get(f"{past.path}/history", headers={"If-None-Match": etag(2, token, 1)})
    assert (second.status_code, second.headers["etag"]) == (200, etag(3, token, 1))


async def test_an_order_that_does_not_exist_is_404_as_of_a_position_of_the_log(past: Past) -> None:
    answer = await past.queries.get(f"{past.path}/history")
    assert past.order_id in problem(answer, 404, "order-not-found")["detail"]
    assert answer.headers["consistency-token"] == await token_now(past.recorder)


async def test_a_bad_parameter_is_422(past: Past) -> None:
    for query, pointer in {
        "limit=0": "query/limit",
        "limit=1001": "query/limit",
        "limit=many": "query/limit",
        "after_version=-1": "query/after_version",
        f"after_version={2**31}": "query/after_version",
    }.items():
        answer = await past.queries.get(f"{past.path}/history?{query}")
        [error] = problem(answer, 422, "invalid-request")["errors"]
        assert error["pointer"] == pointer
    unknown = await past.queries.get(f"{past.path}/history?as_of=2026-01-31T14:30:00Z")
    assert problem(unknown, 400, "malformed-query")["parameter"] == "as_of"


async def test_an_id_that_none_can_have_is_422(past: Past) -> None:
    problem(await past.queries.get("/orders/no%20such/history"), 422, "invalid-request")


# --- tokens --------------------------------------------------------------------------------------------------------


def paths(past: Past) -> list[str]:
    return [f"{past.path}/history", f"{past.path}?as_of=2020-01-01T00:00:00Z"]


async def test_a_token_that_cannot_be_read_is_400(past: Past) -> None:
    for path in paths(past):
        problem(await _with_token(past.queries, path, "yesterday"), 400, "malformed-token")


async def test_a_token_of_another_log_is_400(past: Past) -> None:
    for path in paths(past):
        problem(await _with_token(past.queries, path, ConsistencyToken(uuid4(), 1).encode()), 400, "unknown-log")


async def test_a_token_that_a_copy_of_the_log_does_not_reach_is_503_until_it_does(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey
) -> None:
    async with served_from_copy(postgres.url, valkey.url) as (queries, log, copy):
        for recorder in (log, copy):
            await recorder.record("42", placed(), occurred_at=BACK_THEN)
        await log.record("42", paid())
        token = await token_now(log)
        paths = ("/orders/42/history", "/orders/42?as_of=2020-01-01T00:00:00Z")
        for path in paths:
            detail = problem(await _with_token(queries, path, token, wait=0), 503, "projection-lagging")["detail"]
            assert "position 1, the token asks for 2" in detail
        questions = [
            asyncio.create_task(_with_token(queries, path, token, wait=20)) for path in paths for _ in range(10)
        ]
        answered, _ = await asyncio.wait(questions, timeout=0.3)
        assert not answered
        await copy.record("42", paid())
        for answer in await asyncio.gather(*questions):
            assert answer.status_code == 200, answer.text
            assert answer.headers["consistency-token"] == token
            assert answer.headers["preference-applied"] == "wait=20"


async def _with_token(client: httpx.AsyncClient, path: str, token: str, wait: int = 1) -> httpx.Response:
    return await client.get(path, headers={"Consistency-Token": token, "Prefer": f"wait={wait}"})


async def test_tokens_of_answers_never_go_backwards(past: Past) -> None:
    tokens: list[ConsistencyToken] = []
    for _ in range(3):
        await past.recorder.record(past.order_id, placed())
        answer = await past.queries.get(f"{past.path}/history")
        tokens.append(ConsistencyToken.decode(answer.headers["consistency-token"]))
    assert all(earlier.position < later.position for earlier, later in pairwise(tokens))


# --- what it depends on --------------------------------------------------------------------------------------------


async def _ask_service(past: Past, **changes: Any) -> list[httpx.Response]:
    """What a query service with other settings answers to both questions about the past."""
    async with running_query_service(past.settings, **changes) as queries:
        return [await queries.get(path) for path in paths(past)]


async def test_the_past_can_be_read_without_redis(past: Past) -> None:
    await past.recorder.record(past.order_id, placed(LAMP), occurred_at=BACK_THEN)
    (nobody,) = free_ports(1)
    answers = await _ask_service(past, redis_url=f"redis://127.0.0.1:{nobody}/0")
    assert [answer.status_code for answer in answers] == [200, 200]


async def test_without_postgresql_the_past_is_503(past: Past) -> None:
    (nobody,) = free_ports(1)
    for answer in await _ask_service(past, database_url=f"postgresql://orders_auditor@127.0.0.1:{nobody}/orders"):
        problem(answer, 503, "log-unavailable")


async def test_the_past_can_be_read_from_another_server_than_the_present(past: Past) -> None:
    await past.recorder.record(past.order_id, placed(), occurred_at=BACK_THEN)
    (nobody,) = free_ports(1)
    auditor = settings_of(past.settings, "orders_auditor").database_url
    answers = await _ask_service(
        past, history_database_url=auditor, database_url=f"postgresql://orders@127.0.0.1:{nobody}/orders"
    )
    assert [answer.status_code for answer in answers] == [200, 200]
