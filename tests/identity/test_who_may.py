"""What callers may do, over HTTP: every route times the owner, another customer, each role, and refused tokens."""

from __future__ import annotations

import asyncio
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from command_service.app import create_app as create_command_app
from query_service.app import create_app as create_query_app
from shared.identity.access import access_of
from shared.identity.caller import Role
from tests.audit.evidence import audit
from tests.given_when_then import problem
from tests.identity.issuer import bearer
from tests.identity.shop import ABSENT, ACCOUNT, ORDER, OTHER, OTHER_ACCOUNT, OWNER, Shop
from tests.openapi import NOWHERE
from tests.orders import order_body

pytestmark = pytest.mark.asyncio(loop_scope="module")

# method, path: the roles that may use it; nothing: public.
MAY = {
    ("GET", "/livez"): "",
    ("GET", "/readyz"): "",
    ("GET", "/metrics"): "operator",
    ("POST", "/orders"): "customer staff service",
    ("POST", "/orders/{order_id}/items"): "customer staff service",
    ("DELETE", "/orders/{order_id}/items/{product_id}"): "customer staff service",
    ("PUT", "/orders/{order_id}/lines/{line_id}"): "customer staff service",
    ("PUT", "/orders/{order_id}/shipping-address"): "customer staff service",
    ("POST", "/orders/{order_id}/payment"): "staff finance service",
    ("POST", "/orders/{order_id}/payments"): "customer staff finance service",
    ("POST", "/orders/{order_id}/payments/{payment_reference}/capture"): "staff finance service",
    ("POST", "/orders/{order_id}/payments/{payment_reference}/void"): "staff finance service",
    ("POST", "/orders/{order_id}/refunds"): "staff finance service",
    ("POST", "/orders/{order_id}/shipment"): "staff service",
    ("POST", "/orders/{order_id}/shipments"): "staff service",
    ("POST", "/orders/{order_id}/shipments/{shipment_id}/delivery"): "staff service",
    ("POST", "/orders/{order_id}/delivery"): "staff service",
    ("POST", "/orders/{order_id}/returns"): "customer staff service",
    ("POST", "/orders/{order_id}/returns/{return_id}/receipt"): "staff service",
    ("POST", "/orders/{order_id}/hold"): "staff service",
    ("DELETE", "/orders/{order_id}/hold"): "staff service",
    ("POST", "/orders/{order_id}/cancellation"): "customer staff service",
    ("GET", "/orders/{order_id}"): "customer staff finance auditor service",
    ("GET", "/orders"): "customer staff finance auditor service",
    ("GET", "/customers/{customer_id}/orders"): "customer staff finance auditor service",
    ("GET", "/reports/revenue"): "staff finance auditor service",
    ("GET", "/orders/{order_id}/history"): "customer staff finance auditor service",
    ("GET", "/orders/{order_id}/events"): "customer staff finance auditor service",
    ("GET", "/customers/{customer_id}/orders/events"): "customer staff finance auditor service",
    ("GET", "/payments/{payment_id}"): "staff finance auditor service",
    ("GET", "/payments/{payment_id}/history"): "staff finance auditor service",
    ("GET", "/payments/{payment_id}/events"): "staff finance auditor service",
    ("POST", "/processes/{process_id}/retry"): "operator staff",
    ("POST", "/processes/{process_id}/skip"): "operator staff",
    ("POST", "/processes/{process_id}/compensate"): "operator staff",
    ("GET", "/processes"): "operator staff finance auditor service",
    ("GET", "/processes/{process_id}"): "operator staff finance auditor service",
    ("GET", "/processes/{process_id}/history"): "operator staff finance auditor service",
    ("GET", "/processes/{process_id}/events"): "operator staff finance auditor service",
    ("GET", "/transfers/{transfer_id}"): "staff finance auditor service",
    ("GET", "/transfers/{transfer_id}/history"): "staff finance auditor service",
    ("GET", "/transfers/{transfer_id}/events"): "staff finance auditor service",
    ("GET", "/events"): "staff auditor service",
    ("GET", "/projections"): "operator",
    ("POST", "/accounts"): "staff finance service",
    ("POST", "/accounts/{account_id}/deposits"): "staff finance service",
    ("POST", "/accounts/{account_id}/withdrawals"): "customer staff finance service",
    ("POST", "/accounts/{account_id}/interest"): "finance service",
    ("POST", "/transfers"): "customer staff finance service",
    ("GET", "/accounts/{account_id}"): "customer staff finance auditor service",
    ("GET", "/accounts/{account_id}/statement"): "customer staff finance auditor service",
    ("GET", "/accounts/{account_id}/history"): "customer staff finance auditor service",
    ("GET", "/accounts/{account_id}/events"): "customer staff finance auditor service",
    ("GET", "/customers/{customer_id}/accounts/events"): "customer staff finance auditor service",
    ("POST", "/customers"): "customer staff service",
    ("PATCH", "/customers/{customer_id}"): "customer staff service",
    ("PUT", "/customers/{customer_id}/email"): "customer staff service",
    ("PUT", "/customers/{customer_id}/addresses/{address_id}"): "customer staff service",
    ("DELETE", "/customers/{customer_id}/addresses/{address_id}"): "customer staff service",
    ("PUT", "/customers/{customer_id}/payment-methods/{payment_method_id}"): "customer staff service",
    ("DELETE", "/customers/{customer_id}/payment-methods/{payment_method_id}"): "customer staff service",
    ("POST", "/customers/{customer_id}/erasure"): "privacy",
    ("GET", "/customers/{customer_id}"): "customer staff service privacy",
    ("GET", "/customers/{customer_id}/erasure"): "auditor privacy",
    ("GET", "/customers/{customer_id}/history"): "customer staff finance auditor service",
    ("GET", "/customers/{customer_id}/events"): "customer staff finance auditor service",
    ("PUT", "/products/{product_id}"): "staff service",
    ("POST", "/products/{product_id}/reviews"): "customer staff service",
    ("DELETE", "/products/{product_id}"): "staff service",
    ("GET", "/products/{product_id}"): "customer staff finance auditor service",
    ("GET", "/products"): "customer staff finance auditor service",
    ("GET", "/categories"): "customer staff finance auditor service",
    ("POST", "/products/{product_id}/stock/receipts"): "staff service",
    ("POST", "/products/{product_id}/stock/adjustments"): "staff service",
    ("POST", "/gateways/{gateway}/events"): "",
    ("GET", "/products/{product_id}/stock"): "staff finance auditor service",
    ("GET", "/stock/{stock_id}"): "staff finance auditor service",
    ("GET", "/stock/{stock_id}/history"): "staff finance auditor service",
    ("GET", "/stock/{stock_id}/events"): "staff finance auditor service",
}


async def test_every_route_says_who_may_use_it() -> None:
    said = {}
    for create in (create_command_app, create_query_app):
        for method, path, roles in access_of(create(NOWHERE).router.routes):
            said[method, path] = roles
    assert {route: " ".join(sorted(roles)) for route, roles in said.items()} == {
        route: " ".join(sorted(roles.split())) for route, roles in MAY.items()
    }


# Without callbacks of gateways, which are signed: tests/command_service/test_gateway_callbacks.py.
ROUTES = pytest.mark.parametrize(
    ("method", "path"), [route for route in MAY if "{gateway}" not in route[1]], ids=lambda part: part
)


@ROUTES
@pytest.mark.parametrize("role", Role)
async def test_a_role_may_use_its_routes_and_no_other(shop: Shop, method: str, path: str, role: Role) -> None:
    answer = await shop.ask(method, path, shop.issuer.token(role, customer_id=OWNER))
    allowed = MAY[method, path].split()
    if allowed and role not in allowed:
        assert problem(answer, 403, "forbidden")["allowed"] == sorted(allowed)
    else:
        assert answer.status_code not in {401, 403}, answer.text
        # The order and the customer are there; they may have no such payment, shipment, return or address. Their
        # products may not be in the catalogue, and have no stock.
        of_it = (
            "/{order_id}/",
            "payment_id",
            "transfer_id",
            "process_id",
            "/customers/{customer_id}/",
            "product",
            "stock",
        )
        assert answer.status_code != 404 or any(part in path for part in of_it), answer.text
        gone = {"order-not-found", "customer-not-found"}
        assert answer.status_code != 404 or answer.json()["code"] not in gone, answer.text


@ROUTES
async def test_without_a_token_that_is_accepted_only_public_routes_answer(shop: Shop, method: str, path: str) -> None:
    issuer = shop.issuer
    refused = {
        None: "token-missing",
        issuer.token(*Role, customer_id=OWNER, valid_seconds=-60): "token-refused",
        issuer.token(*Role, customer_id=OWNER, aud="another"): "token-refused",
        issuer.token(*Role, customer_id=OWNER, subject="\ud800"): "token-refused",
        issuer.token(*Role, customer_id=OWNER, exp=int("9" * 400)): "token-refused",
        issuer.token(*Role, customer_id=OWNER, key=generate_private_key(SECP256R1())): "token-refused",
        "eyJhbGciOiJub25lIiwia2lkIjoiZmlyc3QifQ.e30.": "token-refused",  # alg: none
    }
    for token, code in refused.items():
        answer = await shop.ask(method, path, token)
        if MAY[method, path]:
            problem(answer, 401, code)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        else:
            assert answer.status_code == 200, answer.text


async def test_events_name_who_caused_them(shop: Shop) -> None:
    buyer = shop.issuer.token("customer", customer_id=OWNER, subject="bob")
    placed = await shop.commands.post("/orders", json=order_body(customer_id=OWNER), headers=bearer(buyer))
    order_id = placed.json()["aggregate_id"]
    position = placed.json()["position"]
    auditor = bearer(shop.issuer.token("auditor")) | {"Consistency-Token": placed.headers["Consistency-Token"]}
    history = await shop.queries.get(f"/orders/{order_id}/history", headers=auditor)
    page = await shop.queries.get("/events", params={"after": position - 1, "limit": 1}, headers=auditor)
    url = shop.settings.database_url.get_secret_value()
    exported = await asyncio.to_thread(audit, "export", "--database-url", url, "--from", position, "--to", position)
    for metadata in (
        history.json()["events"][0]["metadata"],
        page.json()["events"][0]["metadata"],
        json.loads(json.loads(exported.output)["metadata"]),
    ):
        assert metadata["actor"] == {"sub": "bob", "roles": ["customer"]}


async def test_an_idempotency_key_belongs_to_its_caller(shop: Shop) -> None:
    key = {"Idempotency-Key": "shared-key"}
    answers = [
        await shop.commands.post(
            "/orders",
            json=order_body(customer_id=customer),
            headers=key | bearer(shop.issuer.token("customer", customer_id=customer, subject=subject)),
        )
        for subject, customer in [("bob", OWNER), ("mallory", OTHER), ("bob", OWNER)]
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert answers[0].json() == answers[2].json() != answers[1].json()
    assert "Idempotent-Replayed" not in answers[1].headers


async def test_a_customer_cannot_change_what_another_has_not_even_with_its_version(shop: Shop) -> None:
    other = bearer(shop.issuer.token("customer", customer_id=OTHER, subject="mallory"))
    for condition in ({}, {"If-Match": '"1"'}):
        answers = [
            await shop.commands.put(
                f"/orders/{order_id}/shipping-address", json={"shipping_address_id": "x"}, headers=other | condition
            )
            for order_id in (ORDER, ABSENT)
        ]
        assert answers[0].text.replace(ORDER, ABSENT) == answers[1].text
        assert answers[0].status_code == answers[1].status_code == (412 if condition else 404)


@pytest.mark.parametrize("sent", ["Basic Ym9iOnNlY3JldA==", "Bearer", "bearer-token"])
async def test_what_is_no_bearer_token_is_none(shop: Shop, sent: str) -> None:
    problem(await shop.queries.get("/orders", headers={"Authorization": sent}), 401, "token-missing")


async def test_a_customer_transfers_money_between_accounts_of_its_own_only(shop: Shop) -> None:
    staff, owner = bearer(shop.issuer.token("staff")), bearer(shop.issuer.token("customer", customer_id=OWNER))
    foreign = {"account_id": "foreign-1", "owner_id": OTHER, "currency": "GBP"}
    await shop.commands.post("/accounts", json=foreign, headers=staff)
    await shop.commands.post(f"/accounts/{ACCOUNT}/deposits", json={"amount": 9, "reference": "salary"}, headers=staff)
    body = {"from_account_id": ACCOUNT, "amount": 1, "reference": "savings"}

    to_foreign, to_absent, to_own = [
        await shop.commands.post("/transfers", json={**body, "to_account_id": account_id}, headers=owner)
        for account_id in ("foreign-1", ABSENT, OTHER_ACCOUNT)
    ]

    problem(to_foreign, 404, "account-not-found")
    assert to_foreign.text.replace("foreign-1", ABSENT) == to_absent.text
    assert to_own.status_code == 200, to_own.text


async def test_a_customer_pays_its_orders_from_its_own_accounts_only(shop: Shop) -> None:
    staff, owner = bearer(shop.issuer.token("staff")), bearer(shop.issuer.token("customer", customer_id=OWNER))
    other = bearer(shop.issuer.token("customer", customer_id=OTHER, subject="mallory"))
    foreign = {"account_id": "foreign-2", "owner_id": OTHER, "currency": "GBP"}
    await shop.commands.post("/accounts", json=foreign, headers=staff)
    for account_id in (ACCOUNT, "foreign-2"):
        deposit = {"amount": 9, "reference": "salary"}
        await shop.commands.post(f"/accounts/{account_id}/deposits", json=deposit, headers=staff)
    path, body = f"/orders/{ORDER}/payments", {"payment_reference": "own-1", "amount": 1}

    from_foreign, from_absent, from_own = [
        await shop.commands.post(path, json={**body, "account_id": account_id}, headers=owner)
        for account_id in ("foreign-2", "foreign-x", ACCOUNT)
    ]
    for_foreign = await shop.commands.post(path, json={**body, "account_id": "foreign-2"}, headers=other)
    from_elsewhere = await shop.commands.post(path, json=body, headers=owner)

    problem(from_foreign, 404, "account-not-found")
    assert from_foreign.text.replace("foreign-2", "foreign-x") == from_absent.text
    assert from_own.status_code == 200, from_own.text
    problem(for_foreign, 404, "order-not-found")
    assert problem(from_elsewhere, 403, "forbidden")["allowed"] == ["finance", "service", "staff"]
