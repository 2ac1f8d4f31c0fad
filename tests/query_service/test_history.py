"""GET /orders/{order_id}/history."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from query_service.app import create_app
from shared import event_store
from shared.consistency import ConsistencyToken
from shared.settings import Settings
from tests.given_when_then import problem
from tests.orders import LAMP, MUG, cancelled, order_body, paid, placed, shipped
from tests.query_service.reading import token_now
from tests.recording import Recorder
from tests.roles import settings_of
from tests.running import free_ports, running_app

BACK_THEN = datetime(2010, 12, 1, 8, 26, tzinfo=UTC)
Shop = tuple[httpx.AsyncClient, httpx.AsyncClient]


async def test_shows_what_happened_in_order_as_the_log_has_it(
    queries_alone: httpx.AsyncClient, recorder: Recorder, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await recorder.record("another", placed())
    await recorder.record("42", placed(MUG), paid(900), occurred_at=BACK_THEN)

    answer = await queries_alone.get("/orders/42/history")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert list(document) == ["order_id", "events", "next_after_version"]
    assert (document["order_id"], document["next_after_version"]) == ("42", None)
    rows = [row async for row in event_store.read_stream(connection, "order-42")]
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


async def test_names_the_command_that_led_to_each_event(shop: Shop) -> None:
    commands, queries = shop
    done = await commands.post("/orders", json=order_body(), headers={"X-Correlation-ID": "from-the-web-shop"})

    answer = await queries.get(f"{done.headers['location']}/history")

    [event] = answer.json()["events"]
    assert event["metadata"]["command"] == "PlaceOrder"
    assert event["metadata"]["command_id"] == done.json()["command_id"]
    assert event["metadata"]["correlation_id"] == "from-the-web-shop"
    assert answer.headers["consistency-token"] == done.json()["consistency_token"], "the log is never behind"


async def test_gives_the_json_that_was_stored_to_the_letter(
    queries_alone: httpx.AsyncClient, recorder: Recorder
) -> None:
    text = '{ "shipping_address_id":"caf\\u00e9 \U0001f600",  "later" : [1.0, 1.00, 1e400] }'
    await recorder.record("42", placed())
    await recorder.record_raw("42", "ShippingAddressChanged", 1, text)

    answer = await queries_alone.get("/orders/42/history")

    assert text.encode() in answer.content


async def test_shows_even_what_this_program_cannot_read(queries_alone: httpx.AsyncClient, recorder: Recorder) -> None:
    await recorder.record_raw("42", "OrderGiftWrapped", 7, '{"paper": "blue"}')

    [event] = (await queries_alone.get("/orders/42/history")).json()["events"]

    assert (event["event_type"], event["schema_version"], event["data"]) == ("OrderGiftWrapped", 7, {"paper": "blue"})


async def test_comes_in_pages_that_neither_repeat_nor_miss_an_event(
    queries_alone: httpx.AsyncClient, recorder: Recorder
) -> None:
    await recorder.record("42", placed(), paid(), cancelled(3_499), placed(), placed())
    for limit in (1, 2, 4, 5, 1_000):
        versions: list[int] = []
        url = f"/orders/42/history?limit={limit}"
        while url:
            page = await queries_alone.get(url)
            events = page.json()["events"]
            assert 1 <= len(events) <= limit
            versions += [event["version"] for event in events]
            more = page.json()["next_after_version"]
            assert more == (versions[-1] if versions[-1] < 5 else None)
            assert ("next" in page.links) == (more is not None)
            url = page.links["next"]["url"] if more else ""
        assert versions == [1, 2, 3, 4, 5]


async def test_after_the_last_version_there_is_an_empty_page(
    queries_alone: httpx.AsyncClient, recorder: Recorder
) -> None:
    await recorder.record("42", placed(), paid())
    for after in (2, 3, 2**31 - 1):
        answer = await queries_alone.get("/orders/42/history", params={"after_version": after})
        assert answer.json() == {"order_id": "42", "events": [], "next_after_version": None}


async def test_a_client_that_has_it_need_not_fetch_it_again(
    queries_alone: httpx.AsyncClient, recorder: Recorder
) -> None:
    await recorder.record("42", placed(), paid())
    answer = await queries_alone.get("/orders/42/history")
    assert answer.headers["etag"] == '"2"'

    again = await queries_alone.get("/orders/42/history", headers={"If-None-Match": '"2"'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["consistency-token"] == answer.headers["consistency-token"]

    await recorder.record("42", shipped())
    news = await queries_alone.get("/orders/42/history", headers={"If-None-Match": '"2"'})
    assert (news.status_code, news.headers["etag"]) == (200, '"3"')


async def test_an_order_that_does_not_exist_is_404_as_of_a_place_in_the_log(
    queries_alone: httpx.AsyncClient, recorder: Recorder
) -> None:
    await recorder.record("42", placed())
    answer = await queries_alone.get("/orders/43/history")
    assert "'43'" in problem(answer, 404, "order-not-found")["detail"]
    assert answer.headers["consistency-token"] == await token_now(recorder)


async def test_a_bad_parameter_is_422(queries_alone: httpx.AsyncClient) -> None:
    for query, pointer in {
        "limit=0": "query/limit",
        "limit=1001": "query/limit",
        "limit=many": "query/limit",
        "after_version=-1": "query/after_version",
        f"after_version={2**31}": "query/after_version",
        "as_of=2026-01-31T14:30:00Z": "query/as_of",
    }.items():
        answer = await queries_alone.get(f"/orders/42/history?{query}")
        [error] = problem(answer, 422, "invalid-request")["errors"]
        assert error["pointer"] == pointer


async def test_an_id_that_none_can_have_is_422(queries_alone: httpx.AsyncClient) -> None:
    problem(await queries_alone.get("/orders/no%20such/history"), 422, "invalid-request")


# --- tokens --------------------------------------------------------------------------------------------------------


PATHS = ["/orders/42/history", "/orders/42?as_of=2020-01-01T00:00:00Z"]


async def test_a_token_that_cannot_be_read_is_400(queries_alone: httpx.AsyncClient) -> None:
    for path in PATHS:
        problem(await _with_token(queries_alone, path, "yesterday"), 400, "malformed-token")


async def test_a_token_of_another_log_is_400(queries_alone: httpx.AsyncClient) -> None:
    for path in PATHS:
        problem(await _with_token(queries_alone, path, ConsistencyToken(uuid4(), 1).encode()), 400, "unknown-log")


async def test_a_token_that_this_copy_of_the_log_does_not_reach_is_503_after_the_wait(
    queries_alone: httpx.AsyncClient, recorder: Recorder
) -> None:
    await recorder.record("42", placed(), occurred_at=BACK_THEN)
    for path in PATHS:
        answer = await _with_token(queries_alone, path, await _token_ahead(recorder), wait=0)
        detail = problem(answer, 503, "projection-lagging")["detail"]
        assert "position 1, the token asks for 2" in detail


async def test_a_copy_of_the_log_that_reaches_the_token_in_time_answers(
    queries_alone: httpx.AsyncClient, recorder: Recorder
) -> None:
    """The primary stands in for a replica: what counts is that the event arrives after the question."""
    await recorder.record("42", placed(), occurred_at=BACK_THEN)
    ahead = await _token_ahead(recorder)
    questions = [
        asyncio.create_task(_with_token(queries_alone, path, ahead, wait=20)) for path in PATHS for _ in range(20)
    ]
    answered, _ = await asyncio.wait(questions, timeout=0.3)
    assert not answered
    await recorder.record("42", paid())
    for answer in await asyncio.gather(*questions):
        assert answer.status_code == 200, answer.text
        assert answer.headers["consistency-token"] == ahead
        assert answer.headers["preference-applied"] == "wait=20"


async def _with_token(client: httpx.AsyncClient, path: str, token: str, wait: int = 1) -> httpx.Response:
    return await client.get(path, headers={"Consistency-Token": token, "Prefer": f"wait={wait}"})


async def _token_ahead(recorder: Recorder) -> str:
    head = await event_store.read_head(recorder.connection)
    return ConsistencyToken(head.log_id, head.position + 1).encode()


async def test_tokens_of_answers_never_go_backwards(queries_alone: httpx.AsyncClient, recorder: Recorder) -> None:
    tokens: list[ConsistencyToken] = []
    for order_id in ("1", "2", "3"):
        await recorder.record(order_id, placed())
        answer = await queries_alone.get("/orders/1/history")
        tokens.append(ConsistencyToken.decode(answer.headers["consistency-token"]))
    assert all(earlier.position < later.position for earlier, later in pairwise(tokens))


# --- what it depends on --------------------------------------------------------------------------------------------


async def _ask_service(settings: Settings, **changes: Any) -> list[httpx.Response]:
    """What a query service of these settings says to both questions about the past."""
    settings = Settings.model_validate({**settings_of(settings, "orders_auditor").model_dump(), **changes})
    (port,) = free_ports(1)
    async with running_app(create_app(settings), port) as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
        return [await client.get("/orders/42/history"), await client.get("/orders/42?as_of=2020-01-01T00:00:00Z")]


async def test_the_past_can_be_read_without_redis(settings: Settings, recorder: Recorder) -> None:
    await recorder.record("42", placed(LAMP), occurred_at=BACK_THEN)
    (nobody,) = free_ports(1)
    answers = await _ask_service(settings, redis_url=f"redis://127.0.0.1:{nobody}/0")
    assert [answer.status_code for answer in answers] == [200, 200]


async def test_without_postgresql_the_past_is_503(settings: Settings) -> None:
    (nobody,) = free_ports(1)
    for answer in await _ask_service(settings, database_url=f"postgresql://orders_auditor@127.0.0.1:{nobody}/orders"):
        problem(answer, 503, "log-unavailable")


async def test_the_past_can_be_read_from_another_server_than_the_present(
    settings: Settings, recorder: Recorder
) -> None:
    await recorder.record("42", placed(), occurred_at=BACK_THEN)
    (nobody,) = free_ports(1)
    auditor = settings_of(settings, "orders_auditor").database_url
    answers = await _ask_service(
        settings, history_database_url=auditor, database_url=f"postgresql://orders@127.0.0.1:{nobody}/orders"
    )
    assert [answer.status_code for answer in answers] == [200, 200]
