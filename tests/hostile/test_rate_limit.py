"""One client that floods a service is refused, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic

import httpx
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from query_service.app import create_app as create_query_app
from shared.http import client_middleware, rate_limit
from shared.http.client_middleware import UNLIMITED
from shared.http.rate_limit import CELLS, DEFAULT_RATE, RateLimit, TooManyRequests
from shared.metrics import RATE_LIMITED
from shared.settings import Settings
from tests.given_when_then import problem
from tests.hostile.clients import client_at
from tests.hostile.connections import connected, limited, server
from tests.identity.issuer import AUDIENCE, ISSUER, Issuer, bearer
from tests.openapi import NOWHERE
from tests.orders import order_body
from tests.query_service.event_source import following
from tests.running import clients_of, eventually, running_query_service, running_stack

FLOOD = 50  # requests that are refused
CONNECTIONS = 50
FEW = {"rate_limit": 1, "rate_limit_burst": 3}


def identifying(settings: Settings, issuer: Issuer, **changes: object) -> Settings:
    auth = {"auth": "jwt", "auth_issuer": ISSUER, "auth_audience": AUDIENCE, "auth_jwks": str(issuer.file)}
    return Settings.model_validate({**settings.model_dump(), **auth, **changes})


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "keys.json")


class Clock:
    """Of the rates; it moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1_000

    def __call__(self) -> int:
        return self.seconds * 10**9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate_limit, "monotonic_ns", clock)
    monkeypatch.setattr(client_middleware, "PAUSE_SECONDS", 0.0)
    return clock


@asynccontextmanager
async def flooding(client: httpx.AsyncClient, method: str, path: str) -> AsyncIterator[Counter[int]]:
    """The client sends as fast as it can, meanwhile; yields how many answers it got, by status."""
    answered: Counter[int] = Counter()

    async def send() -> None:
        while True:
            answer = await client.request(method, path, json=order_body() if method == "POST" else None)
            answered[answer.status_code] += 1

    tasks = [asyncio.create_task(send()) for _ in range(CONNECTIONS)]
    try:
        yield answered
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.mark.promise("requests", "A client that sends too many requests gets 429; others are served meanwhile")
@pytest.mark.parametrize("flooded", ["/orders", "/nowhere"])
async def test_a_flood_of_one_client_is_refused_and_others_are_served(settings: Settings, flooded: str) -> None:
    rate = 20
    bounded = settings.model_copy(update={"rate_limit": rate, "rate_limit_burst": rate})
    with structlog.testing.capture_logs() as logged:
        await _flood_and_use(bounded, flooded)
    assert {line["client"] for line in logged if line["event"] == "rate limit reached"} == {"127.0.0.2"}


async def _flood_and_use(settings: Settings, flooded: str) -> None:
    assert settings.rate_limit is not None
    async with running_stack(settings), clients_of(settings) as services:
        for service, method in zip(services, ("POST", "GET"), strict=True):
            async with client_at("127.0.0.2", service) as attacker, client_at("127.0.0.3", service) as other:
                waits, began = [], monotonic()
                async with flooding(attacker, method, flooded) as answered:
                    await eventually(lambda: answered[429] > FLOOD, seconds=30)
                    for _ in range(10):
                        started = monotonic()
                        answer = await other.request(method, "/orders", json=order_body() if method == "POST" else None)
                        assert answer.is_success, answer.text
                        waits.append(monotonic() - started)
                assert max(waits) < 1.0
                assert sum(answered.values()) - answered[429] <= settings.rate_limit * (2 + monotonic() - began)


async def test_a_client_that_is_refused_is_told_when_to_come_back(settings: Settings, clock: Clock) -> None:
    counted = RATE_LIMITED._value.get()
    async with running_query_service(settings, **FEW) as queries:
        answers = [await queries.get("/orders/42") for _ in range(3)]
        assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"requests";q=3;w=3'}
        assert [answer.headers["RateLimit"] for answer in answers] == [
            '"requests";r=2;t=2',
            '"requests";r=1;t=1',
            '"requests";r=0;t=1',
        ]
        for method, path in (("GET", "/orders/42"), ("HEAD", "/orders"), ("PUT", "/orders"), ("GET", "/docs")):
            refused = await queries.request(method, path)
            assert refused.status_code == 429
            assert refused.headers["Retry-After"] == "1"
            assert refused.headers["RateLimit"] == '"requests";r=0;t=1'
            assert refused.headers["X-Correlation-ID"]
            if method == "GET":
                told = problem(refused, 429, "too-many-requests")
                assert (told["rate"], told["burst"]) == (1, 3)
        clock.seconds += 1
        assert [(await queries.get("/docs")).status_code for _ in range(2)] == [200, 429]
        clock.seconds += 60
        assert (await queries.get("/docs")).headers["RateLimit"] == '"requests";r=2;t=2'
    assert RATE_LIMITED._value.get() == counted + 5


@pytest.mark.parametrize("proxy", ["", "127.0.0.1"])
async def test_the_connection_of_a_client_that_floods_is_read_slowly_unless_it_is_a_proxys(
    settings: Settings, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "monotonic_ns", Clock())
    app = create_query_app(Settings.model_validate({**settings.model_dump(), **FEW}))
    async with server(limited(trusted_proxies=proxy), app) as port, connected(port) as client:
        client.send(b"GET /docs/errors.md HTTP/1.1\r\nHost: a\r\n\r\n" * 5)
        assert [(await client.answer()).status for _ in range(4)] == [200, 200, 200, 429]
        refused = monotonic()
        assert (await client.answer()).status == 429
        assert (monotonic() - refused > 0.9) is (proxy == "")


@pytest.mark.usefixtures("clock")
async def test_orchestrators_and_prometheus_ask_as_often_as_they_like(settings: Settings) -> None:
    async with running_query_service(settings, **FEW) as queries:
        for path in UNLIMITED * 5:
            answer = await queries.get(path)
            assert answer.status_code != 429
            assert "RateLimit" not in answer.headers
        assert (await queries.get("/docs")).headers["RateLimit"] == '"requests";r=2;t=2'


@pytest.mark.promise("live-updates", "A browser that is refused for now is told in the stream when to come back")
@pytest.mark.usefixtures("clock")
async def test_a_browser_that_sends_too_many_requests_opens_its_stream_later(settings: Settings) -> None:
    async with running_query_service(settings, **FEW) as queries:
        assert [(await queries.get("/docs")).status_code for _ in range(4)] == [200, 200, 200, 429]
        async with following(queries, "/orders/42/events", accept="text/event-stream") as source:
            await eventually(lambda: source.ended)
        assert [told["code"] for told in source.problems] == ["too-many-requests"]
        assert source.retry_ms is not None
        assert source.retry_ms >= 1_000


@pytest.mark.promise("requests", "With `AUTH=jwt` each caller has its own rate, whatever its address")
@pytest.mark.usefixtures("clock")
async def test_callers_of_one_address_are_limited_one_by_one(settings: Settings, issuer: Issuer) -> None:
    async with running_query_service(identifying(settings, issuer, **FEW)) as queries:
        alice, again, bob = [
            bearer(issuer.token("operator", subject=subject, jti=str(number)))
            for number, subject in enumerate(["alice", "alice", "bob"])
        ]
        statuses = [
            (await queries.get("/docs", headers=headers)).status_code for headers in (alice, again, alice, again)
        ]
        assert statuses == [200, 200, 200, 429]
        assert (await queries.get("/docs", headers=bob)).headers["RateLimit"] == '"requests";r=2;t=2'
        assert (await queries.get("/docs")).headers["RateLimit"] == '"requests";r=2;t=2'
        async with client_at("127.0.0.2", queries) as elsewhere:
            problem(await elsewhere.get("/docs", headers=alice), 429, "too-many-requests")


@pytest.mark.promise("requests", "Forged tokens count for the address that sends them, not for the caller they name")
@pytest.mark.usefixtures("clock")
async def test_forged_tokens_count_for_their_address(settings: Settings, issuer: Issuer) -> None:
    forger = generate_private_key(SECP256R1())
    forged = [bearer(issuer.token("staff", subject=name, key=forger)) for name in ("a", "b", "c", "d", "alice")]
    alice = bearer(issuer.token("staff", subject="alice"))
    async with (
        running_query_service(identifying(settings, issuer, **FEW)) as queries,
        client_at("127.0.0.2", queries) as attacker,
    ):
        assert (await queries.get("/docs", headers=alice)).headers["RateLimit"] == '"requests";r=2;t=2'
        statuses = [(await attacker.get("/orders/42", headers=headers)).status_code for headers in forged]
        assert statuses == [401, 401, 401, 429, 429], "each names another caller, and none has a rate of its own"
        assert (await attacker.get("/livez", headers=forged[0])).status_code == 429, "a signature costs as much there"
        assert (await attacker.get("/livez")).status_code == 200
        answer = await attacker.get("/docs", headers=alice)
        assert answer.headers["RateLimit"] == '"requests";r=1;t=1', "a verified token counts for its caller alone"


@pytest.mark.usefixtures("clock")
@pytest.mark.bound("command, query", "rates of clients")
def test_no_number_of_clients_gives_one_its_requests_back() -> None:
    limit = RateLimit(1, 3)
    for _ in range(3):
        limit.take("attacker")

    def send(numbers: range) -> None:
        for number in numbers:
            with suppress(TooManyRequests):  # it shares a cell
                limit.take(f"client {number}")

    send(range(2 * CELLS))
    tracemalloc.start()
    try:
        send(range(2 * CELLS, 2 * CELLS + 5_000))
        assert tracemalloc.get_traced_memory()[0] < 100_000, "the table does not grow"
    finally:
        tracemalloc.stop()
    with pytest.raises(TooManyRequests):
        limit.take("attacker")


@pytest.mark.usefixtures("clock")
def test_clients_that_flood_leave_almost_all_others_their_rate() -> None:
    limit = RateLimit(1, 3)
    flooders, others = 1_000, 10_000
    for number in range(flooders):
        with suppress(TooManyRequests):
            while True:
                limit.take(f"flooder {number}")
    refused = 0
    for number in range(others):
        try:
            limit.take(f"client {number}")
        except TooManyRequests:
            refused += 1
    assert refused < 3 * others * flooders / CELLS


def test_callers_are_limited_unless_that_is_turned_off_and_addresses_only_where_that_is_asked_for() -> None:
    def of(**changes: object) -> RateLimit | None:
        return RateLimit.of(Settings.model_validate({**NOWHERE.model_dump(), **changes}))

    assert of() is None
    assert of(rate_limit="") is None
    assert of(auth="jwt", rate_limit=0) is None
    for limit in (of(auth="jwt"), of(rate_limit=DEFAULT_RATE)):
        assert limit is not None
        assert limit.headers(1_000)[0] == (b"ratelimit-policy", b'"requests";q=1000;w=5')
