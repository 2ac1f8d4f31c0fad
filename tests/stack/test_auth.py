"""`orders up --auth` and `orders token`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cli.bearer_token import BearerToken
from cli.failure import BadArgument
from tests.orders import order_body
from tests.orders_command import invoke_orders, run_orders
from tests.stack.orders_up import OrdersUp

pytestmark = pytest.mark.subprocess

INVOICE = """\
InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
536365,85123A,HEART,6,2010-12-01 08:26:00,2.55,17850,United Kingdom
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrdersUp]:
    up = OrdersUp(tmp_path_factory.mktemp("stack") / "data", options=["--auth"])
    try:
        up.until_ready()
        yield up
    finally:
        up.stop()


def token(stack: OrdersUp, *options: str) -> str:
    printed = invoke_orders("token", *options, "--data-dir", str(stack.data_dir))
    assert printed.returncode == 0, printed.stderr
    return printed.stdout.strip()


def test_a_stack_with_auth_accepts_the_tokens_that_the_command_line_prints(stack: OrdersUp) -> None:
    assert httpx.get(f"{stack.query_url}/orders", timeout=30).status_code == httpx.codes.UNAUTHORIZED
    customers = token(stack, "--role", "customer", "--customer-id", "alice")
    placed = httpx.post(
        f"{stack.command_url}/orders",
        json=order_body(customer_id="alice"),
        headers={"Authorization": f"Bearer {customers}"},
        timeout=30,
    )
    assert placed.status_code == httpx.codes.CREATED, placed.text


def test_an_import_identifies_itself_with_a_token_of_a_file_or_of_the_environment(
    stack: OrdersUp, tmp_path: Path
) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(INVOICE)
    arguments = ("import", str(file), "--data-dir", str(stack.data_dir))
    refused = invoke_orders(*arguments, cwd=tmp_path)
    assert refused.returncode == 1
    assert (
        "401: Send `Authorization: Bearer <token>`. (give a bearer token: ORDERS_TOKEN, or --token-file)"
        in refused.stderr
    )
    forbidden = invoke_orders(*arguments, cwd=tmp_path, env={"ORDERS_TOKEN": token(stack, "--role", "auditor")})
    assert forbidden.returncode == 1
    assert "403: This needs one of the roles customer, service, staff." in forbidden.stderr
    held = tmp_path / "token"
    held.write_text(token(stack, "--role", "service", "--sub", "importer") + "\n")
    placed = invoke_orders(*arguments, "--token-file", str(held), cwd=tmp_path)
    assert placed.stdout.splitlines()[-1] == "accepted 1, rejected 0, already there 0", placed.stderr
    again = invoke_orders(*arguments, cwd=tmp_path, env={"ORDERS_TOKEN": held.read_text().strip()})
    assert again.stdout.splitlines()[-1] == "accepted 0, rejected 0, already there 1", again.stderr


def test_an_operator_sees_the_read_models(stack: OrdersUp) -> None:
    status = ("projections", "status", "--data-dir", str(stack.data_dir))
    refused = invoke_orders(*status)
    assert refused.returncode == 1
    assert "give a bearer token: ORDERS_TOKEN, or --token-file" in refused.stderr
    shown = invoke_orders(*status, env={"ORDERS_TOKEN": token(stack, "--role", "operator")})
    assert shown.returncode == 0, shown.stderr
    assert "revenue_by_day" in shown.stdout


def test_a_token_file_that_holds_none_is_refused(tmp_path: Path) -> None:
    for content in (None, b"", b"one\ntwo", b"one two", "Größe".encode()):
        if content is not None:
            (tmp_path / "token").write_bytes(content)
        refused = invoke_orders("projections", "status", "--token-file", str(tmp_path / "token"))
        assert refused.returncode == BadArgument.exit_code
        assert "--token-file" in refused.stderr


@pytest.mark.parametrize("value", ["one two", "one\ntwo", "Größe"])
def test_a_variable_that_holds_no_token_is_refused_and_not_shown(value: str) -> None:
    refused = invoke_orders("projections", "status", "--query-url", "http://127.0.0.1:9", env={"ORDERS_TOKEN": value})
    assert refused.returncode == BadArgument.exit_code
    assert refused.stderr == "orders: ORDERS_TOKEN does not hold one token\n"


def test_a_token_that_has_expired_is_read_again_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    accepted = "first"
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(200 if seen[-1] == f"Bearer {accepted}" else 401)

    with httpx.Client(auth=BearerToken(file), transport=httpx.MockTransport(answer)) as client:
        assert client.get("http://orders/").status_code == httpx.codes.OK
        file.write_text("second\n")
        accepted = "second"
        assert [client.get("http://orders/").status_code for _ in range(2)] == [200, 200]
        accepted = "third"
        assert client.get("http://orders/").status_code == httpx.codes.UNAUTHORIZED
    assert [one.split()[1] for one in seen] == ["first", "first", "second", "second", "second"]


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
