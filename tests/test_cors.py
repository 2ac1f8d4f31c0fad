"""Which pages of other origins may call the services, and that a page can read every answer, whatever its status."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from redis.asyncio import Redis

from command_service.admission import Limit
from shared.http.cors import EXPOSED
from shared.settings import Settings
from tests.documented import read_document
from tests.hostile.connections import connected
from tests.running import clients_of, running_stack

PAGE = "http://localhost:5173"
ALLOWED = "https://shop.example,http://localhost:*"
FROM_PAGE = {"Origin": PAGE}


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    allowing = settings.model_copy(update={"cors_origins": ALLOWED})
    async with running_stack(allowing), clients_of(allowing) as clients:
        yield clients


def assert_readable(answer: httpx.Response, origin: str = PAGE) -> None:
    """By a page of that origin, with every header."""
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-expose-headers"] == ", ".join(EXPOSED)
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.promise(
    "queries", "Pages of the origins in `CORS_ORIGINS` can read every answer, errors and event streams included"
)
async def test_a_page_reads_answers_of_every_kind(shop: tuple[httpx.AsyncClient, httpx.AsyncClient]) -> None:
    commands, queries = shop
    for client, method, path, status in (
        (queries, "GET", "/orders", 200),
        (queries, "HEAD", "/orders", 200),
        (queries, "GET", "/orders/no-such", 404),
        (queries, "GET", "/orders?limit=0", 422),
        (queries, "GET", "/nowhere", 404),
        (queries, "PUT", "/orders", 405),
        (commands, "POST", "/orders", 415),
    ):
        answer = await client.request(method, path, headers=FROM_PAGE, content=b"a" if method == "POST" else None)
        assert answer.status_code == status
        assert_readable(answer)
    too_large = await commands.post("/orders", content=b"a" * 600_000, headers=FROM_PAGE)
    assert too_large.status_code == 413
    assert_readable(too_large, "*")  # refused by the server, which tells of the request alone
    async with queries.stream("GET", "/customers/alice/orders/events", headers=FROM_PAGE) as stream:
        assert_readable(stream)


async def test_a_page_reads_a_defect_of_the_service(
    shop: tuple[httpx.AsyncClient, httpx.AsyncClient], redis: Redis
) -> None:
    _, queries = shop
    await redis.hset("{orders.0}:meta", "log_id", "no id")
    answer = await queries.get("/orders/42", headers=FROM_PAGE)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
    assert_readable(answer)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_a_preflight_allows_what_the_contract_offers(
    shop: tuple[httpx.AsyncClient, httpx.AsyncClient], method: str
) -> None:
    wanted = "content-type,if-match,if-none-match,idempotency-key,consistency-token,prefer,x-correlation-id,traceparent"
    asked = {**FROM_PAGE, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": wanted}
    for client in shop:
        answer = await client.options("/orders/42/items", headers=asked)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert method in answer.headers["access-control-allow-methods"].split(", ")
        assert answer.headers["access-control-allow-headers"] == wanted
        assert answer.headers["access-control-max-age"] == "600"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://shop.example", True),
        ("http://localhost", True),
        ("http://localhost:1", True),
        ("https://localhost:5173", False),
        ("http://shop.example", False),
        ("https://shop.example.evil.example", False),
        ("https://shopxexample", False),
        ("http://localhost:5173.evil.example", False),
        ("null", False),
    ],
)
async def test_only_pages_of_these_origins_may_call(
    shop: tuple[httpx.AsyncClient, httpx.AsyncClient], origin: str, allowed: bool
) -> None:
    _, queries = shop
    answer = await queries.get("/orders", headers={"Origin": origin})
    assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
    asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    assert (await queries.options("/orders", headers=asked)).is_success is allowed


async def test_no_page_of_another_origin_may_call_unless_one_is_named(stack: Settings) -> None:
    async with clients_of(stack) as clients:
        for client in clients:
            answer = await client.get("/livez", headers=FROM_PAGE)
            assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_page_reads_a_refusal_that_never_reaches_the_application(
    shop: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    for client in shop:
        async with connected(client.base_url.port or 0) as connection:
            connection.send(b"GET /" + b"a" * (100 * 1024))
            answer = await connection.answer()
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (414, "*")


async def test_a_page_reads_that_the_service_is_overloaded(
    shop: tuple[httpx.AsyncClient, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, _ = shop
    monkeypatch.setattr(Limit, "admits", lambda *_: False)
    answer = await commands.post("/orders", json={}, headers=FROM_PAGE)
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert_readable(answer, "*")


def test_every_header_of_the_documents_is_exposed() -> None:
    documents = [read_document(service) for service in ("command", "query")]
    told = {
        name
        for document in documents
        for item in document["paths"].values()
        for operation in item.values()
        for answer in operation["responses"].values()
        for name in answer.get("headers", {})
    }
    assert told - {*EXPOSED} == set()
