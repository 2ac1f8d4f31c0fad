"""`orders up --auth` and `orders token`."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.orders import order_body
from tests.orders_command import invoke_orders, run_orders
from tests.stack.orders_up import OrdersUp

pytestmark = pytest.mark.subprocess


def test_a_stack_with_auth_accepts_the_tokens_that_the_command_line_prints(tmp_path: Path) -> None:
    stack = OrdersUp(tmp_path / "data", options=["--auth"])
    try:
        stack.until_ready()
        assert httpx.get(f"{stack.query_url}/orders", timeout=30).status_code == httpx.codes.UNAUTHORIZED
        printed = invoke_orders(
            "token", "--role", "customer", "--customer-id", "alice", "--data-dir", str(stack.data_dir)
        )
        assert printed.returncode == 0, printed.stderr
        placed = httpx.post(
            f"{stack.command_url}/orders",
            json=order_body(customer_id="alice"),
            headers={"Authorization": f"Bearer {printed.stdout.strip()}"},
            timeout=30,
        )
        assert placed.status_code == httpx.codes.CREATED, placed.text
    finally:
        stack.stop()


def test_without_a_key_the_command_line_says_how_to_make_one(tmp_path: Path) -> None:
    refused = invoke_orders("token", "--role", "staff", "--data-dir", str(tmp_path))
    assert refused.returncode == 1
    assert "run `orders up --auth` there first" in refused.stderr


@pytest.mark.parametrize(
    ("process", "settings", "said"),
    [
        ("command", {"HOST": "0.0.0.0"}, "AUTH_OFF_ANYWHERE=yes"),
        ("query", {"HOST": "0.0.0.0"}, "AUTH_OFF_ANYWHERE=yes"),
        ("query", {"AUTH": "jwt"}, "AUTH=jwt needs AUTH_ISSUER, AUTH_AUDIENCE, AUTH_JWKS"),
    ],
)
def test_a_process_that_would_let_everyone_in_does_not_start(process: str, settings: dict[str, str], said: str) -> None:
    nowhere = {"DATABASE_URL": "postgresql://nowhere", "REDIS_URL": "redis://nowhere"}
    refused = run_orders("run", process, env={**nowhere, **settings})
    assert refused.returncode != 0
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
