"""What operators see: health, metrics, logs, and the one answer that means a defect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import get_args

import httpx
import pytest
import structlog
from uuid_utils.compat import uuid7

from cli.stack.embedded_postgres import EmbeddedPostgres
from command_service.domain.order import OrderCommand
from command_service.handler import Handler
from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, NewEvent
from shared.settings import Settings
from tests.given_when_then import Orders, problem
from tests.orders import order_body, place, placed
from tests.recording import put_in_log
from tests.running import free_ports, running_command_service

pytestmark = pytest.mark.asyncio(loop_scope="module")


def samples(metrics: str) -> dict[str, float]:
    """Sample (with its labels) to value."""
    lines = [line.rpartition(" ") for line in metrics.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def measured(orders: Orders) -> dict[str, float]:
    answer = await orders.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return samples(answer.text)


class TestMetrics:
    async def test_count_commands_by_what_became_of_them(self, orders: Orders) -> None:
        before = await measured(orders)
        headers = {"Idempotency-Key": "metrics"}
        for _ in range(3):
            await orders.client.post("/orders", json=order_body(order_id="metrics"), headers=headers)
        await orders.client.post("/orders/metrics/delivery", json={})
        after = await measured(orders)

        def more(command: str, outcome: str) -> float:
            name = f'orders_commands_total{{command="{command}",outcome="{outcome}"}}'
            return after[name] - before.get(name, 0)

        assert more("PlaceOrder", "appended") == 1
        assert more("PlaceOrder", "replayed") == 2
        assert more("ConfirmDelivery", "order-not-shipped") == 1

    @pytest.mark.parametrize("outcome", ["outcome-unknown", "log-unavailable", "overloaded"])
    async def test_have_a_series_for_what_alerts_ask_for_before_it_happens(self, orders: Orders, outcome: str) -> None:
        """Else the first would be the first sample of its series, and no rate would show it."""
        now = await measured(orders)
        for command in get_args(OrderCommand):
            assert f'orders_commands_total{{command="{command.__name__}",outcome="{outcome}"}}' in now

    async def test_tell_of_appends_conflicts_and_requests(self, orders: Orders) -> None:
        before = await measured(orders)
        await put_in_log(orders.connection, "order-appended", placed())
        await orders.client.post("/orders", json=order_body(order_id="appended"))
        await place(orders.client)
        await orders.client.post("/orders/appended/delivery", json={})
        await orders.client.get("/orders/appended/nowhere")
        now = await measured(orders)
        more = {name: now[name] - before.get(name, 0) for name in now}  # than tests before this one have left
        assert more["orders_append_group_commands_count"] >= 1
        assert more["orders_append_seconds_sum"] > 0
        assert more["orders_append_wait_seconds_count"] >= more["orders_append_group_commands_count"]
        assert now["orders_append_queue_commands"] == 0
        assert now['orders_version_conflicts_total{command="PlaceOrder"}'] >= 1
        assert now['orders_http_requests_total{method="POST",route="/orders",status="201"}'] >= 1
        assert now['orders_http_requests_total{method="POST",route="/orders/{order_id}/delivery",status="409"}'] >= 1
        assert now['orders_http_requests_total{method="GET",route="unmatched",status="404"}'] >= 1

    async def test_have_no_order_in_their_labels(self, orders: Orders) -> None:
        await place(orders.client, order_id="private")
        await orders.client.post("/orders/private/delivery", json={})
        assert "private" not in (await orders.client.get("/metrics")).text


class TestHealth:
    async def test_is_told_while_all_is_well(self, orders: Orders) -> None:
        for path, status in {"/livez": "ok", "/readyz": "ready"}.items():
            answer = await orders.client.get(path)
            assert (answer.status_code, answer.json()) == (200, {"status": status})

    async def test_without_postgres_is_alive_but_not_ready(self, orders_settings: Settings) -> None:
        [nobody] = free_ports(1)
        away = f"postgresql://orders:secret@127.0.0.1:{nobody}/orders"
        async with service_not_ready(orders_settings, away) as client:
            await assert_every_command_is_refused(client)

    async def test_without_the_database_is_alive_but_not_ready(self, orders_settings: Settings) -> None:
        server, _, _ = orders_settings.database_url.get_secret_value().rpartition("/")
        async with service_not_ready(orders_settings, f"{server}/no_such_database") as client:
            await assert_every_command_is_refused(client)

    async def test_before_the_migration_is_alive_but_not_ready(
        self, orders_settings: Settings, postgres: EmbeddedPostgres
    ) -> None:
        async with service_not_ready(orders_settings, postgres.url):
            pass


async def assert_every_command_is_refused(client: httpx.AsyncClient) -> None:
    problem(await client.post("/orders", json=order_body()), 503, "log-unavailable")
    problem(await client.post("/orders/1/delivery", json={}), 503, "log-unavailable")
    headers = {"Idempotency-Key": "key"}
    problem(await client.post("/orders/1/delivery", json={}, headers=headers), 503, "log-unavailable")


@asynccontextmanager
async def service_not_ready(settings: Settings, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    [port] = free_ports(1)
    changed = {**settings.model_dump(), "database_url": database_url, "command_port": port, "append_wait_seconds": 0.1}
    async with (
        running_command_service(Settings.model_validate(changed)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        assert (await client.get("/livez")).status_code == 200
        body = problem(await client.get("/readyz"), 503, "not-ready")
        assert "secret" not in str(body)
        yield client
        assert (await client.get("/livez")).status_code == 200


class TestADefect:
    async def test_is_logged_with_its_correlation_id_and_clean_for_the_client(
        self, orders: Orders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*_: object) -> None:
            raise RuntimeError("the secret is 42")

        with (
            monkeypatch.context() as patched,
            structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logged,
        ):
            patched.setattr(Handler, "handle", fail)
            headers = {"X-Correlation-ID": "checkout-42"}
            answer = await orders.client.post("/orders", json=order_body(), headers=headers)
        problem(answer, 500, "internal-error")
        assert "42" not in answer.text
        assert answer.headers["x-correlation-id"] == "checkout-42"
        [entry] = [entry for entry in logged if entry["log_level"] == "error"]
        assert entry["correlation_id"] == "checkout-42"
        assert repr(entry["exc_info"]) == "RuntimeError('the secret is 42')"
        await place(orders.client)

    async def test_is_counted(self, orders: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
        name = 'orders_http_requests_total{method="POST",route="/orders",status="500"}'
        before = (await measured(orders)).get(name, 0)
        with monkeypatch.context() as patched, structlog.testing.capture_logs():
            patched.setattr(Handler, "handle", None)
            await orders.client.post("/orders", json=order_body())
        assert (await measured(orders))[name] == before + 1

    async def test_of_the_log_stops_commands_on_that_order_only(self, orders: Orders) -> None:
        unknown = NewEvent(uuid7(), "OrderGiftWrapped", 1, '{"secret": 42}', "{}", datetime.now(UTC))
        await event_log.append_group(orders.connection, [AppendRequest.of_stream("order-newer", 0, uuid7(), [unknown])])
        body = problem(await orders.client.post("/orders/newer/delivery", json={}), 500, "unknown-event-type")
        assert "42" not in str(body)
        await place(orders.client)
