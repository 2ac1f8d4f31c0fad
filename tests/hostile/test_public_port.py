"""What the port for clients tells: nothing about the machine, to no host but its own, nothing that a cache keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import httpx
import pytest

from command_service.app import create_app as create_command_app
from query_service.app import create_app as create_query_app
from shared.identity.access import access_of
from shared.settings import Settings
from tests.documented import queries_documented
from tests.hostile.connections import connected
from tests.recording import Recorder
from tests.running import eventually, free_ports, running_query_service

FOR_OPERATORS = ("/metrics", "/projections")


@pytest.fixture
async def nobody() -> Settings:
    """Settings with which an application can be made, but not started."""
    return Settings.model_validate({"database_url": "postgresql://nobody", "redis_url": "redis://nobody"})


class Ports:
    """A query service with a port for operators: clients of both ports."""

    def __init__(self, public: httpx.AsyncClient, operations: httpx.AsyncClient) -> None:
        self.public, self.operations = public, operations


@pytest.fixture
async def ports(settings: Settings) -> AsyncIterator[Ports]:
    [port] = free_ports(1)
    async with (
        running_query_service(settings, operations_port=port) as public,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as operations,
    ):
        yield Ports(public, operations)


class TestOperationsPort:
    @pytest.mark.promise(
        "lag", "With `OPERATIONS_PORT`, the port for clients shows no metrics and no read model's state"
    )
    async def test_only_operators_see_metrics_and_the_state_of_read_models(self, ports: Ports) -> None:
        for path in FOR_OPERATORS:
            refused = await ports.public.get(path)
            assert (refused.status_code, refused.json()["code"]) == (404, "no-such-route"), path
        assert "python_info" in (await ports.operations.get("/metrics")).text
        shown = await ports.operations.get("/projections")
        assert [one["name"] for one in shown.json()["projections"]] == [
            "orders",
            "revenue_by_day",
            "accounts",
            "customers",
            "stock",
            "processes",
            "products",
            "categories",
        ]
        assert shown.headers["projection-lag"]

    async def test_only_operators_are_told_what_is_missing(self, ports: Ports) -> None:
        told = [(await client.get("/readyz")).json() for client in (ports.public, ports.operations)]
        assert [one["code"] for one in told] == ["not-ready", "not-ready"]
        assert [("built from the log" in one["detail"], "reason" in one) for one in told] == [
            (False, True),
            (True, True),
        ]

    async def test_it_serves_no_client(self, ports: Ports) -> None:
        for path in ("/orders", "/docs", "/openapi.json"):
            assert (await ports.operations.get(path)).status_code == 404, path
        assert (await ports.operations.get("/livez")).status_code == 200

    async def test_a_document_of_a_service_that_shows_less_lists_less(self, ports: Ports) -> None:
        paths = (await ports.public.get("/openapi.json")).json()["paths"]
        assert {*FOR_OPERATORS} & {*paths} == set()
        assert "/readyz" in paths

    @pytest.mark.parametrize(
        ("host", "shown"),
        [
            ("127.0.0.1", True),
            ("::1", True),
            ("localhost", True),
            ("0.0.0.0", False),
            ("192.0.2.1", False),
            ("a", False),
        ],
    )
    async def test_without_one_they_are_shown_where_only_this_machine_can_ask(
        self, nobody: Settings, host: str, shown: bool
    ) -> None:
        settings = nobody.model_copy(update={"host": host, "auth_off_anywhere": True})
        for app, paths in (
            (create_command_app(settings), {"/metrics"}),
            (create_query_app(settings), {*FOR_OPERATORS}),
        ):
            assert ({*paths} <= {access.path for access in access_of(app.router.routes)}) is shown


class TestHosts:
    """A page of another site whose name was made to lead to this machine (DNS rebinding) counts as of our origin."""

    @pytest.mark.promise("commands", "A service on a loopback address answers for no other host's name")
    async def test_another_host_is_refused(self, rebound: httpx.AsyncClient) -> None:
        for host in ("evil.example", "evil.example:8002", "localhost.evil.example", "[::2]:80"):
            for path in ("/orders", "/livez", "/nowhere"):
                answer = await rebound.get(path, headers={"Host": host})
                assert (answer.status_code, answer.json()["code"]) == (421, "misdirected-request"), (host, path)

    async def test_this_machine_is_served(self, rebound: httpx.AsyncClient) -> None:
        for host in ("localhost", "LOCALHOST:8002", "127.0.0.1:1", "[::1]:8002", "[::1]"):
            assert (await rebound.get("/livez", headers={"Host": host})).status_code == 200, host

    @pytest.fixture
    async def rebound(self, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
        """As a service is without any configuration."""
        async with running_query_service(settings, allowed_hosts="") as client:
            yield client

    async def test_the_hosts_can_be_named(self, settings: Settings) -> None:
        async with running_query_service(settings, allowed_hosts="shop.example,[::1]") as client:
            for host, status in {"shop.example": 200, "Shop.Example:443": 200, "[::1]": 200, "localhost": 421}.items():
                assert (await client.get("/livez", headers={"Host": host})).status_code == status, host


PRIVATE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "private, no-store",
}


def assert_private(headers: Mapping[str, str]) -> None:
    assert {name: headers.get(name) for name in PRIVATE} == PRIVATE


class TestHeaders:
    @pytest.mark.promise(
        "queries", "No cache keeps an answer, and no browser guesses its type or passes its address on"
    )
    async def test_of_every_answer_of_the_query_service(self, stack: Settings, recorder: Recorder) -> None:
        await recorder.record_raw("43", "OrderTeleported", 1, "{}")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.query_port}", timeout=30) as client:
            for path, status in {
                "/orders": 200,
                "/orders/42": 404,
                "/orders/43?known_at=2026-01-01T00:00:00Z": 404,
                "/orders?limit=0": 422,
                "/nowhere": 404,
                "/livez": 200,
                "/docs": 200,
                "/": 307,
            }.items():
                answer = await client.get(path)
                assert answer.status_code == status, path
                assert_private(answer.headers)
            async with client.stream("GET", "/customers/alice/orders/events") as stream:
                assert_private(stream.headers)
            await recorder.record_raw("44", "OrderTeleported", 1, "{}")
            assert_private((await client.post("/orders/42")).headers)

    async def test_of_every_answer_of_the_command_service(self, stack: Settings) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.command_port}", timeout=30) as client:
            for body, status in {b"{}": 422, b"{": 400, b"a" * (512 * 1024 + 1): 413}.items():
                headers = {"Content-Type": "application/json"}
                answer = await client.post("/orders", content=body, headers=headers)
                assert answer.status_code == status
                assert_private(answer.headers)

    async def test_of_a_request_that_never_reaches_the_application(self, stack: Settings) -> None:
        for port in (stack.command_port, stack.query_port):
            async with connected(port) as client:
                client.send(b"GET /" + b"a" * (100 * 1024))
                answer = await client.answer()
                assert answer.status == 414
                assert_private(answer.headers)

    async def test_files_of_the_reference_may_be_kept(self, stack: Settings) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.query_port}") as client:
            answer = await client.get("/docs/swagger/swagger-ui.css")
        assert answer.status_code == 200
        assert "no-store" not in answer.headers.get("cache-control", "")
        assert answer.headers["x-content-type-options"] == "nosniff"

    async def test_the_reference_runs_no_script_but_ours(self, stack: Settings) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.query_port}") as client:
            page = await client.get("/docs")
        policy = page.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert page.text.count("<script") == page.text.count('<script src="/docs/')


class TestHead:
    @pytest.mark.promise("queries", "`HEAD` works wherever `GET` does, live updates included")
    async def test_answers_as_get_without_a_body(self, stack: Settings) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.query_port}", timeout=10) as client:
            for path in ["/docs", "/openapi.json", "/", *queries_documented()]:
                head = await client.head(path)
                if path.endswith("/events"):
                    async with client.stream("GET", path) as got:
                        assert head.status_code == got.status_code
                        continue
                got = await client.get(path)
                assert (head.status_code, head.content) == (got.status_code, b""), path
                assert head.headers.get("content-type") == got.headers.get("content-type"), path
                if path != "/metrics":
                    assert abs(int(head.headers["content-length"]) - len(got.content)) < 100, path

    async def test_of_an_event_stream_ends_and_leaves_its_slot(self, settings: Settings) -> None:
        async with running_query_service(settings, sse_streams=1) as client:

            async def is_answered() -> bool:
                return (await client.head("/customers/alice/orders/events")).status_code == 200

            for _ in range(3):
                await eventually(is_answered)

    async def test_does_not_hold_up_the_next_request_on_its_connection(self, settings: Settings) -> None:
        async with running_query_service(settings) as client, connected(client.base_url.port or 0) as connection:
            connection.send(b"HEAD /customers/alice/orders/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await connection.reader.readuntil(b"\r\n\r\n")
            connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (b"200 OK" in head, (await connection.answer()).body) == (True, b'{"status":"ok"}')

    async def test_is_allowed_where_get_is(self, stack: Settings) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.query_port}") as client:
            assert (await client.put("/orders/42")).headers["allow"] == "GET, HEAD"
            assert (await client.delete("/livez")).headers["allow"] == "GET, HEAD"
