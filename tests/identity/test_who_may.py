"""What callers may do, over HTTP: every route times the owner, another customer, each role, and refused tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from command_service.app import create_app as create_command_app
from query_service.app import create_app as create_query_app
from shared.identity.access import access_of
from shared.identity.caller import Role
from shared.settings import Settings
from tests.given_when_then import problem
from tests.identity.issuer import AUDIENCE, ISSUER, Issuer, bearer
from tests.openapi import NOWHERE
from tests.orders import order_body
from tests.running import clients_of, fresh_database, running_stack, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWNER, OTHER = "17850", "13047"
ORDER, ABSENT = "owned-1", "absent-1"
EVERYONE = "customer staff finance auditor operator privacy service"

# method, path: the roles that may use it; nothing: public.
MAY = {
    ("GET", "/livez"): "",
    ("GET", "/readyz"): "",
    ("GET", "/metrics"): "operator",
    ("POST", "/orders"): "customer staff service",
    ("POST", "/orders/{order_id}/items"): "customer staff service",
    ("DELETE", "/orders/{order_id}/items/{product_id}"): "customer staff service",
    ("PUT", "/orders/{order_id}/shipping-address"): "customer staff service",
    ("POST", "/orders/{order_id}/payment"): "staff finance service",
    ("POST", "/orders/{order_id}/shipment"): "staff service",
    ("POST", "/orders/{order_id}/delivery"): "staff service",
    ("POST", "/orders/{order_id}/cancellation"): "customer staff service",
    ("GET", "/orders/{order_id}"): "customer staff finance auditor service",
    ("GET", "/orders"): "staff finance auditor service",
    ("GET", "/customers/{customer_id}/orders"): "customer staff finance auditor service",
    ("GET", "/reports/revenue"): "staff finance auditor service",
    ("GET", "/orders/{order_id}/history"): "staff finance auditor service",
    ("GET", "/orders/{order_id}/events"): "staff finance auditor service",
    ("GET", "/customers/{customer_id}/orders/events"): "staff finance auditor service",
    ("GET", "/events"): "staff auditor service",
    ("GET", "/projections"): "operator",
}

LINE = {"product_id": "MUG", "quantity": 1, "unit_price": 450}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/orders"): order_body(customer_id=OWNER),
    ("POST", "/orders/{order_id}/items"): LINE,
    ("PUT", "/orders/{order_id}/shipping-address"): {"shipping_address_id": "work"},
    ("POST", "/orders/{order_id}/payment"): {"payment_reference": "p-1", "amount": 1},
    ("POST", "/orders/{order_id}/shipment"): {"tracking_number": "t-1"},
    ("POST", "/orders/{order_id}/delivery"): {},
    ("POST", "/orders/{order_id}/cancellation"): {"reason": "ordered twice"},
}
QUERIES = {("GET", "/reports/revenue"): {"from": "2026-01-01", "to": "2026-01-31"}}


class Shop(NamedTuple):
    issuer: Issuer
    commands: httpx.AsyncClient
    queries: httpx.AsyncClient

    async def ask(self, method: str, path: str, token: str | None = None, order_id: str = ORDER) -> httpx.Response:
        """The answer; of an event stream its beginning."""
        client = self.commands if (method, path) in BODIES or method == "DELETE" else self.queries
        url = path.format(order_id=order_id, customer_id=OWNER, product_id="LAMP")
        request = client.build_request(
            method,
            url,
            json=BODIES.get((method, path)),
            params=QUERIES.get((method, path)),
            headers={} if token is None else bearer(token),
        )
        answer = await client.send(request, stream=True)
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            await answer.aread()
        await answer.aclose()
        return answer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shop]:
    """A stack that identifies its callers, with one order of the customer `OWNER`."""
    issuer = Issuer(tmp_path_factory.mktemp("issuer") / "keys.json")
    async with fresh_database(postgres.url) as database_url:
        settings = settings_for(database_url, valkey.url)
        identifying = Settings.model_validate(
            {
                **settings.model_dump(),
                "auth": "jwt",
                "auth_issuer": ISSUER,
                "auth_audience": AUDIENCE,
                "auth_jwks": str(issuer.file),
            }
        )
        async with running_stack(identifying), clients_of(identifying) as (commands, queries):
            placed = await commands.post(
                "/orders", json=order_body(customer_id=OWNER, order_id=ORDER), headers=bearer(issuer.token("staff"))
            )
            assert placed.status_code == 201, placed.text
            token = {"Consistency-Token": placed.headers["Consistency-Token"], "Prefer": "wait=20"}
            shown = await queries.get(f"/orders/{ORDER}", headers={**token, **bearer(issuer.token("staff"))})
            assert shown.status_code == 200, shown.text
            yield Shop(issuer, commands, queries)


async def test_every_route_says_who_may_use_it() -> None:
    said = {}
    for create in (create_command_app, create_query_app):
        for method, path, roles in access_of(create(NOWHERE).router.routes):
            said[method, path] = roles
    assert {route: " ".join(sorted(roles)) for route, roles in said.items()} == {
        route: " ".join(sorted(roles.split())) for route, roles in MAY.items()
    }


ROUTES = pytest.mark.parametrize(("method", "path"), MAY, ids=lambda part: part)


@ROUTES
@pytest.mark.parametrize("role", Role)
async def test_a_role_may_use_its_routes_and_no_other(shop: Shop, method: str, path: str, role: Role) -> None:
    answer = await shop.ask(method, path, shop.issuer.token(role, customer_id=OWNER))
    allowed = MAY[method, path].split()
    if allowed and role not in allowed:
        assert problem(answer, 403, "forbidden")["allowed"] == sorted(allowed)
    else:
        assert answer.status_code not in {401, 403, 404}, answer.text


@ROUTES
async def test_what_is_foreign_is_as_if_it_were_not_there(shop: Shop, method: str, path: str) -> None:
    if "customer" not in MAY[method, path].split():
        return
    other = shop.issuer.token("customer", customer_id=OTHER, subject="mallory")
    foreign = await shop.ask(method, path, other)
    assert foreign.status_code == 404, foreign.text
    if "{order_id}" in path:
        absent = await shop.ask(method, path, other, order_id=ABSENT)
        assert (absent.status_code, set(absent.headers)) == (404, set(foreign.headers))
        assert foreign.text.replace(ORDER, ABSENT) == absent.text


@ROUTES
async def test_without_a_token_that_is_accepted_only_public_routes_answer(shop: Shop, method: str, path: str) -> None:
    issuer = shop.issuer
    refused = {
        None: "token-missing",
        issuer.token(*Role, customer_id=OWNER, valid_seconds=-60): "token-refused",
        issuer.token(*Role, customer_id=OWNER, aud="another"): "token-refused",
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


async def test_the_past_of_what_is_foreign_is_as_if_it_had_not_been(shop: Shop) -> None:
    other = bearer(shop.issuer.token("customer", customer_id=OTHER, subject="mallory"))
    own = bearer(shop.issuer.token("customer", customer_id=OWNER))
    past = {"known_at": datetime.now(UTC).isoformat()}
    foreign, absent, owned = [
        await shop.queries.get(f"/orders/{order_id}", params=past, headers=headers)
        for order_id, headers in ((ORDER, other), (ABSENT, other), (ORDER, own))
    ]
    assert foreign.status_code == absent.status_code == 404
    assert foreign.text.replace(ORDER, ABSENT) == absent.text
    assert owned.json()["customer_id"] == OWNER


async def test_events_name_who_caused_them(shop: Shop) -> None:
    buyer = shop.issuer.token("customer", customer_id=OWNER, subject="bob")
    placed = await shop.commands.post("/orders", json=order_body(customer_id=OWNER), headers=bearer(buyer))
    order_id = placed.json()["aggregate_id"]
    history = await shop.queries.get(
        f"/orders/{order_id}/history",
        headers=bearer(shop.issuer.token("auditor")) | {"Consistency-Token": placed.headers["Consistency-Token"]},
    )
    (event,) = history.json()["events"]
    assert event["metadata"]["actor"] == {"sub": "bob", "roles": ["customer"]}


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
