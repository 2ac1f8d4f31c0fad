"""`orders up --fulfilment`: the process runner and a sandbox are part of the stack."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.orders_command import run_orders
from tests.running import wait_until
from tests.stack.orders_up import OrdersUp
from tests.system.tour import ROOT, Terminal

pytestmark = pytest.mark.subprocess


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrdersUp]:
    stack = OrdersUp(tmp_path_factory.mktemp("fulfilment") / "data", options=["--fulfilment", "orchestrated"])
    try:
        yield stack.until_ready()
    finally:
        stack.stop()


def status_of(up: OrdersUp, order_id: str) -> str:
    answer = httpx.get(f"{up.query_url}/orders/{order_id}", timeout=30)
    return str(answer.json().get("status"))


@pytest.mark.promise("processes", "An order that is placed over HTTP is paid and delivered, with no further request")
def test_an_order_is_delivered_once_it_is_placed(up: OrdersUp) -> None:
    order_id, _ = up.place_order()
    wait_until(lambda: status_of(up, order_id) == "DELIVERED", "the order is delivered")

    ledger = httpx.get(f"{up.descriptor.sandbox_url}/payment/ledger", params={"process_id": f"fulfilment-{order_id}"})
    assert [entry["effect"] for entry in ledger.json()] == ["Authorise", "Capture"]


def test_the_sandbox_calls_back(up: OrdersUp) -> None:
    """Three times, for this amount."""
    order = {
        "customer_id": "17850",
        "currency": "GBP",
        "items": [{"product_id": "85123A", "quantity": 1, "unit_price": 19_009}],
        "shipping_address_id": "address-1",
    }
    httpx.post(f"{up.command_url}/orders", json=order, timeout=30).raise_for_status()

    def taken() -> bool:
        metrics = httpx.get(f"{up.command_url}/metrics", timeout=30).text
        return re.search(r'orders_http_requests_total{.*/gateways/.*status="2\d\d".*} [1-9]', metrics) is not None

    wait_until(taken, "the command service takes a callback")


def test_the_commands_of_the_readme_show_a_delivered_order(up: OrdersUp, tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text().partition("## Have orders fulfilled")[2]
    place, read, history = re.findall(r"^curl .*?(?=^curl|^```)", section, re.DOTALL | re.MULTILINE)
    terminal = Terminal(up, tmp_path)
    assert "consistency_token" in terminal.type(place)
    wait_until(lambda: '"DELIVERED"' in terminal.type(read), "the order is delivered")
    assert "ProcessEnded" in terminal.type(history)


def test_the_process_runner_and_the_sandbox_are_shown_with_their_addresses(up: OrdersUp) -> None:
    for url in (up.descriptor.processes_url, up.descriptor.sandbox_url):
        assert f" {url} " in up.terminal
        assert httpx.get(f"{url}/readyz", timeout=30).is_success
    assert httpx.get(f"{up.descriptor.processes_url}/metrics", timeout=30).is_success


def test_a_runner_without_gateways_is_refused(tmp_path: Path) -> None:
    settings = {"DATABASE_URL": "postgresql://", "REDIS_URL": "redis://", "FULFILMENT": "orchestrated"}
    refused = run_orders("run", "processes", cwd=tmp_path, env=settings)
    assert (refused.returncode, refused.stderr) == (2, "orders: PAYMENT_GATEWAY_URL is not set\n")
