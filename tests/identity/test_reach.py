"""What a customer reaches: its own on every route. What another customer has cannot be told from what is not there."""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic

import httpx
import pytest
from redis.asyncio import Redis

from query_service import time_travel
from query_service.read_models import orders
from shared.eventstore.codec import UnknownEventType
from shared.identity.access import CONCEAL_SECONDS
from shared.identity.caller import Role
from shared.read_models import poison
from tests.given_when_then import problem
from tests.identity.issuer import bearer
from tests.identity.shop import ABSENT, BODIES, ORDER, OTHER, OWNER, Shop
from tests.identity.test_who_may import MAY
from tests.orders import order_body
from tests.query_service.event_source import following
from tests.running import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

OF_ONE = [
    route
    for route in MAY
    if "customer" in MAY[route] and "_id}" in route[1] and not route[1].startswith(("/customers", "/products"))
]
# What a client may add to a request, to learn more from its answer: parameters of some routes, and headers.
PARAMETERS: dict[str, list[dict[str, str]]] = {
    "/orders/{order_id}": [{"as_of": "now"}, {"known_at": "now"}],
    "/accounts/{account_id}": [{"as_of": "now"}, {"known_at": "now"}],
    "/accounts/{account_id}/statement": [{"known_at": "now"}, {"limit": "1"}],
    "/accounts/{account_id}/history": [{"limit": "1"}, {"after_version": "1"}],
    "/accounts/{account_id}/events": [{"after": "0"}, {"after": "1"}],
    "/orders/{order_id}/history": [{"limit": "1"}, {"after_version": "1"}],
    "/orders/{order_id}/events": [{"after": "0"}, {"after": "1"}],
}
HEADERS: list[dict[str, str]] = [
    {},
    {"If-None-Match": "*"},
    {"If-Match": "*"},
    {"If-Match": '"1"'},
    {"Accept": "text/event-stream"},
]


def other(shop: Shop) -> str:
    return shop.issuer.token("customer", customer_id=OTHER, subject="mallory")


def own(shop: Shop) -> str:
    return shop.issuer.token("customer", customer_id=OWNER, subject="bob")


def told(answer: httpx.Response) -> tuple[int, dict[str, str], str]:
    """Everything that the answer tells, but for the time and what the request itself said."""
    headers = {name: value for name, value in answer.headers.items() if name not in {"date", "x-correlation-id"}}
    if "projection-lag" in headers:
        headers["projection-lag"] = "some"
    return answer.status_code, headers, answer.text.replace(ORDER, ABSENT)


def takes_as_long(*seconds: float) -> bool:
    """Whether each answer waited for the time within which finding out is not told. Timers are exact to 1 ms."""
    return min(seconds) >= CONCEAL_SECONDS - 0.002


@pytest.mark.promise("security", "A customer cannot tell what another customer has from what is not there")
@pytest.mark.parametrize(("method", "path"), OF_ONE, ids=lambda part: part)
async def test_what_is_foreign_is_as_if_it_were_not_there(shop: Shop, method: str, path: str) -> None:
    await shop.until_shown()
    etag = (await shop.queries.get(f"/orders/{ORDER}", headers=bearer(own(shop)))).headers["ETag"]
    asked: list[tuple[dict[str, str], dict[str, str]]]
    asked = [({}, headers) for headers in [*HEADERS, {"If-None-Match": etag}, {"If-Match": etag}]]
    if method == "GET":
        asked += [(parameters, {}) for parameters in PARAMETERS[path]]
    now = datetime.now(UTC).isoformat()
    for parameters, headers in asked:
        params = {name: now if value == "now" else value for name, value in parameters.items()}
        began = monotonic()
        foreign = await shop.ask(method, path, other(shop), ORDER, params, headers)
        between = monotonic()
        absent = await shop.ask(method, path, other(shop), ABSENT, params, headers)
        assert told(foreign) == told(absent)
        assert foreign.status_code in ({404, 412} if "If-Match" in headers else {404}), foreign.text
        assert takes_as_long(between - began, monotonic() - between)


OF_CUSTOMERS = [
    route
    for route in MAY
    if "customer" in MAY[route] and "{customer_id}" in route[1] and not route[1].endswith(("/history", "_id}/events"))
]


@pytest.mark.parametrize(("method", "path"), OF_CUSTOMERS, ids=lambda part: part)
async def test_another_customer_is_as_if_it_did_not_exist(shop: Shop, method: str, path: str) -> None:
    answer = await shop.ask(method, path, other(shop))
    assert problem(answer, 404, "customer-not-found")["detail"] == f"There is no such customer: '{OWNER}'."


async def test_who_reads_every_order_and_only_its_own_customer_gets_no_other_customer_with_an_order(shop: Shop) -> None:
    await shop.until_shown()
    bookkeeper = shop.issuer.token("customer", "finance", customer_id=OTHER, subject="mallory")
    assert (await shop.ask("GET", "/orders/{order_id}", bookkeeper)).status_code == 200
    answer = await shop.ask("GET", "/orders/{order_id}", bookkeeper, params={"include": "customer"})
    problem(answer, 404, "customer-not-found")


@pytest.mark.promise("security", "A customer reads what is theirs on every route that reads orders")
@pytest.mark.parametrize(
    "path", ["/orders/{order_id}", "/orders/{order_id}/history", "/customers/{customer_id}/orders"]
)
async def test_a_customer_reads_its_own(shop: Shop, path: str) -> None:
    answer = await shop.ask("GET", path, own(shop))
    assert answer.status_code == 200, answer.text
    assert ORDER in answer.text


async def test_a_customer_lists_its_own_orders_alone(shop: Shop) -> None:
    listed = [(await shop.ask("GET", "/orders", token)).json()["orders"] for token in (own(shop), other(shop))]
    assert ORDER in [order["order_id"] for order in listed[0]]
    assert {order["customer_id"] for order in listed[0]} == {OWNER}
    assert listed[1] == []


async def test_of_given_ids_those_of_others_are_left_out_like_those_that_are_none(shop: Shop) -> None:
    placed = await shop.commands.post("/orders", json=order_body(customer_id=OTHER), headers=bearer(other(shop)))
    mine = placed.json()["aggregate_id"]
    up_to_it = {"Consistency-Token": placed.headers["Consistency-Token"]}
    answers, times = [], []
    for ids in (f"{mine},{ORDER}", f"{mine},{ABSENT}", ORDER, ABSENT):
        began = monotonic()
        answers.append(await shop.ask("GET", "/orders", other(shop), params={"ids": ids}, headers=up_to_it))
        times.append(monotonic() - began)
    assert [[order["order_id"] for order in answer.json()["orders"]] for answer in answers] == [[mine], [mine], [], []]
    assert told(answers[0]) == told(answers[1])
    assert told(answers[2]) == told(answers[3])
    assert takes_as_long(*times)
    every = await shop.ask("GET", "/orders", shop.issuer.token("staff"), params={"ids": f"{mine},{ORDER}"})
    assert len(every.json()["orders"]) == 2


async def test_orders_of_others_do_not_make_an_answer_too_large(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "MAX_ANSWER_BYTES", 10)
    asked = {"ids": ORDER}
    problem(await shop.ask("GET", "/orders", own(shop), params=asked), 422, "answer-too-large")
    assert (await shop.ask("GET", "/orders", other(shop), params=asked)).json() == {"orders": []}


async def test_the_past_of_others_is_not_even_folded(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object) -> None:
        raise UnknownEventType("OrderTeleported")

    monkeypatch.setattr(time_travel, "advance", unreadable)
    now = {"as_of": datetime.now(UTC).isoformat()}
    assert (await shop.ask("GET", "/orders/{order_id}", own(shop), params=now)).status_code == 500
    assert (await shop.ask("GET", "/orders/{order_id}", other(shop), params=now)).status_code == 404


@pytest.mark.parametrize("has_a_document", [True, False])
async def test_an_order_that_could_not_be_applied_is_told_to_its_owner_alone(shop: Shop, has_a_document: bool) -> None:
    order_id = f"parked-{has_a_document}"
    placed = await shop.commands.post(
        "/orders", json=order_body(customer_id=OWNER, order_id=order_id), headers=bearer(own(shop))
    )
    path, token = f"/orders/{order_id}", {"Consistency-Token": placed.headers["Consistency-Token"]}
    assert (await shop.queries.get(path, headers=token | bearer(own(shop)))).status_code == 200
    position = placed.json()["position"]
    parked = poison.Poison(
        document_id=order_id,
        stream_id=f"order-{order_id}",
        position=position,
        version=1,
        event_type="OrderPlaced",
        schema_version=2,
        error="",
        traceback="",
        at=datetime.now(UTC),
        owner=OWNER,
    )
    async with Redis.from_url(shop.settings.redis_url.get_secret_value()) as redis:
        [key] = [key async for key in redis.scan_iter(f"*:doc:{order_id}")]
        await redis.hset(key, "parked", poison.encode(parked))
        if not has_a_document:
            await redis.hdel(key, "document", "version")

    async def noticed() -> bool:  # the query service caches documents
        return (await shop.queries.get(path, headers=token | bearer(own(shop)))).status_code == 503

    await eventually(noticed)
    problem(await shop.queries.get(path, headers=token | bearer(own(shop))), 503, "projection-parked")
    foreign = await shop.queries.get(path, headers=token | bearer(other(shop)))
    absent = await shop.queries.get(f"/orders/{'x' * len(order_id)}", headers=token | bearer(other(shop)))
    assert foreign.text.replace(order_id, "x" * len(order_id)) == absent.text
    assert told(foreign)[:2] == told(absent)[:2]


@pytest.mark.parametrize(("path", "address"), [(f"/orders/{ORDER}", "work"), (f"/customers/{OWNER}/orders", "school")])
async def test_a_customer_follows_its_own(shop: Shop, path: str, address: str) -> None:
    async with following(shop.queries, f"{path}/events?after=0", **bearer(own(shop))) as source:
        await source.until(1)
        assert source.messages[0][1]["order_id"] == ORDER
        changed = await shop.commands.put(
            f"/orders/{ORDER}/shipping-address", json={"shipping_address_id": address}, headers=bearer(own(shop))
        )
        await source.until_reached(changed.json()["position"])


@pytest.mark.promise("security", "An event stream ends when its caller's token expires, and goes on with a new token")
@pytest.mark.parametrize("role", [Role.CUSTOMER, Role.STAFF])
async def test_a_stream_ends_with_its_token_and_goes_on_with_another(shop: Shop, role: Role) -> None:
    # Clocks may differ by 30 s: it is accepted for 1 or 2 s more.
    expiring = shop.issuer.token(role, customer_id=OWNER, valid_seconds=-28)
    path = f"/customers/{OWNER}/orders/events?after=0"
    async with following(shop.queries, path, **bearer(expiring)) as source:
        await source.until(1)
        await eventually(lambda: source.ended)
        assert not source.lost
    problem(await shop.queries.get(path, headers=bearer(expiring)), 401, "token-refused")
    missed = await shop.commands.post("/orders", json=order_body(customer_id=OWNER), headers=bearer(own(shop)))
    async with following(shop.queries, path, source.last_id, **bearer(own(shop))) as resumed:
        await resumed.until_reached(missed.json()["position"])
        assert resumed.positions == [missed.json()["position"]]


async def test_ids_that_customers_choose_are_taken_for_all(shop: Shop) -> None:
    """The one thing that an answer tells; ids that the service makes, or random ones, cannot be guessed."""
    body = {**BODIES["POST", "/orders"], "customer_id": OTHER, "order_id": ORDER}
    answer = await shop.commands.post("/orders", json=body, headers=bearer(other(shop)))
    assert problem(answer, 409, "order-already-placed")["order_id"] == ORDER
