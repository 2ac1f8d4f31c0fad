"""An erasure from the command line: nothing that the stack wrote anywhere holds what the person gave, nor opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from cli.erase import Reason
from cli.stack.descriptor import key_encryption_key_file
from shared.aggregates.customer import ErasureReason
from shared.privacy.key_encryption import read_secrets
from tests.customers import ADDRESS, METHOD, NOTE, PERSON, found, orders_in_every_state
from tests.orders_command import invoke_orders
from tests.running import wait_until
from tests.stack.orders_up import OrdersUp

pytestmark = pytest.mark.subprocess


def post(running: OrdersUp, path: str, body: dict[str, Any], method: str = "POST") -> str:
    """The token of the acknowledgement."""
    answer = httpx.request(method, running.command_url + path, json=body, timeout=30)
    assert answer.is_success, answer.text
    return str(answer.json()["consistency_token"])


def shown(running: OrdersUp, path: str, token: str) -> dict[str, Any]:
    headers = {"Consistency-Token": token, "Prefer": "wait=20"}
    answer = httpx.get(running.query_url + path, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def orders(running: OrdersUp, *arguments: str) -> str:
    done = invoke_orders(*arguments, "--data-dir", str(running.data_dir))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.promise("privacy", "After an erasure logs, exports and backups hold nothing that the person gave")
def test_no_file_of_a_stack_holds_what_an_erased_customer_gave(running: OrdersUp, tmp_path: Path) -> None:
    post(running, "/customers", {"customer_id": "canary", **PERSON})
    post(running, "/customers/canary/addresses/home", ADDRESS, "PUT")
    post(running, "/customers/canary/payment-methods/card", METHOD, "PUT")
    [*_, token] = [post(running, path, body, method) for method, path, body in orders_in_every_state("canary")]
    assert shown(running, "/orders/canary-shipped", token)["note"] == NOTE
    assert shown(running, "/customers/canary", token)["name"] == PERSON["name"]

    erased = json.loads(orders(running, "erase", "canary", "--json"))

    assert erased["aggregate_id"] == "canary"
    wait_until(lambda: shown(running, "/customers/canary", token)["name"] is None, "the customer is erased")
    order = shown(running, "/orders/canary-shipped", token)
    assert (order["customer_id"], order["note"], order["status"]) == ("canary", None, "SHIPPED")
    orders(running, "audit", "verify")
    exported = orders(running, "audit", "export")
    orders(running, "backup", str(tmp_path / "backup"))
    files = [*(running.data_dir / "logs").iterdir(), *(tmp_path / "backup").iterdir()]
    texts = [exported, running.terminal, *(file.read_text(errors="replace") for file in files)]
    assert found(texts) == []


@pytest.mark.promise("privacy", "Keys that were wrapped anew open what was sealed before, without a restart")
def test_keys_are_rotated_while_the_stack_runs(running: OrdersUp) -> None:
    token = post(running, "/customers", {"customer_id": "kept", **PERSON})
    before = read_secrets(key_encryption_key_file(running.data_dir))
    for _ in range(2):  # the second one removes the secret of before
        assert json.loads(orders(running, "keys", "rotate", "--json"))["keys_wrapped"] >= 1
    after = read_secrets(key_encryption_key_file(running.data_dir))
    assert set(before).isdisjoint(after)
    assert shown(running, "/customers/kept", token)["email"] == PERSON["email"]
    token = post(running, "/customers/kept/email", {"email": "new@example.org"}, "PUT")
    assert shown(running, "/customers/kept", token)["email"] == "new@example.org"


def test_what_cannot_be_erased_is_said(running: OrdersUp) -> None:
    refused = invoke_orders("erase", "unknown", "--data-dir", str(running.data_dir))
    assert (refused.returncode, refused.stderr) == (
        1,
        "orders: customer-not-found: There is no such customer: 'unknown'.\n",
    )


def test_without_a_file_of_secrets_nothing_is_rotated(tmp_path: Path) -> None:
    refused = invoke_orders("keys", "rotate", "--file", str(tmp_path / "none"))
    assert refused.returncode == 2
    assert "there is no file of secrets" in refused.stderr


def test_the_reasons_of_the_command_are_those_of_the_event() -> None:
    assert get_args(Reason) == tuple(ErasureReason)
