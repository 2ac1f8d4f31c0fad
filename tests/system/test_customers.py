"""Customers through the running services: registered, changed, shown, erased, and registered anew."""

from __future__ import annotations

from time import monotonic
from typing import Any

import httpx
import pytest

from shared.privacy.subject_key_cache import MAX_AGE_SECONDS
from shared.settings import Settings
from tests.customers import ADDRESS, METHOD, NOTE, PERSON, erase, found, register, shown, texts
from tests.given_when_then import problem
from tests.orders import order_body
from tests.running import eventually, running_command_service

Shop = tuple[httpx.AsyncClient, httpx.AsyncClient]


async def test_a_customer_is_shown_as_it_was_given(shop: Shop) -> None:
    commands, queries = shop
    customer = await shown(queries, "ada", await register(commands, "ada"))
    assert customer == {
        **PERSON,
        "customer_id": "ada",
        "status": "registered",
        "addresses": {"home": ADDRESS},
        "payment_methods": {"card": METHOD},
        "registered_at": customer["registered_at"],
        "erased_at": None,
        "last_event_at": customer["last_event_at"],
        "version": 3,
    }


async def test_a_customer_changes_and_is_shown_as_of_any_time(shop: Shop) -> None:
    commands, queries = shop
    await register(commands, "ada")
    before = (await shown(queries, "ada", await _token(commands.patch("/customers/ada", json={}))))["last_event_at"]
    await _token(commands.patch("/customers/ada", json={"name": "Ada King", "phone": None}))
    await _token(commands.put("/customers/ada/email", json={"email": "king@example.org"}))
    await _token(commands.delete("/customers/ada/addresses/home"))
    token = await _token(commands.delete("/customers/ada/payment-methods/card"))
    customer = await shown(queries, "ada", token)
    assert (customer["name"], customer["email"], customer["phone"]) == ("Ada King", "king@example.org", None)
    assert (customer["locale"], customer["addresses"], customer["payment_methods"]) == (PERSON["locale"], {}, {})
    assert (await shown(queries, "ada", token, as_of=before))["addresses"] == {"home": ADDRESS}


async def _token(answer: Any) -> str:
    answered = await answer
    assert answered.status_code == 200, answered.text
    return str(answered.json()["consistency_token"])


@pytest.mark.promise("privacy", "Anything that may be the number of a card is refused as a payment method")
async def test_a_card_number_is_refused_in_every_field(commands: httpx.AsyncClient) -> None:
    await register(commands, "ada")
    number = "4242 4242-4242 4242"
    for field in ("provider", "token", "brand"):
        answer = await commands.put("/customers/ada/payment-methods/new", json={**METHOD, field: f"card {number}"})
        [error] = problem(answer, 422, "invalid-request")["errors"]
        assert (error["pointer"], error["code"]) == (f"#/{field}", "card-number")
        assert number not in answer.text
    answer = await commands.put("/customers/ada/payment-methods/4242424242424242", json=METHOD)
    [error] = problem(answer, 422, "invalid-request")["errors"]
    assert error["code"] == "card-number"


@pytest.mark.promise("privacy", "A second after an erasure no answer shows the person, at no time")
async def test_an_erased_customer_is_shown_without_the_person(shop: Shop) -> None:
    commands, queries = shop
    before = (await shown(queries, "ada", await register(commands, "ada")))["last_event_at"]
    token = await erase(commands, "ada")
    customer = await shown(queries, "ada", token)
    assert (customer["status"], customer["version"]) == ("erased", 4)
    erased_at = monotonic()
    await eventually(lambda: _is_shown_empty(queries, before))
    assert monotonic() - erased_at < MAX_AGE_SECONDS + 1  # a busy machine answers late
    for answer in (
        await queries.get("/customers/ada"),
        await queries.get("/customers/ada", params={"as_of": before}),
        await queries.get("/customers/ada", params={"known_at": before}),
        await queries.get("/customers/ada/history"),
        await queries.get("/events"),
    ):
        assert answer.status_code == 200, answer.text
        assert found([answer.text]) == []
    problem(await commands.put("/customers/ada/email", json={"email": "new@example.org"}), 409, "customer-erased")


async def _is_shown_empty(queries: httpx.AsyncClient, as_of: str) -> bool:
    answer = await queries.get("/customers/ada", params={"as_of": as_of})
    return bool(answer.json()["name"] is None)


async def test_an_id_is_registered_anew_for_another_person(shop: Shop) -> None:
    commands, queries = shop
    await register(commands, "ada")
    await erase(commands, "ada")
    token = await register(commands, "ada", name="Eve")
    customer = await shown(queries, "ada", token)
    assert (customer["name"], customer["status"], customer["version"]) == ("Eve", "registered", 7)
    problem(
        await commands.post("/customers", json={"customer_id": "ada", **PERSON}), 409, "customer-already-registered"
    )


@pytest.mark.promise("privacy", "A report says of each store what of an erased person is found in it: nothing")
async def test_a_report_says_what_is_left_of_an_erased_customer(shop: Shop) -> None:
    commands, queries = shop
    token = await register(commands, "ada")
    assert (await shown(queries, "ada", token))["status"] == "registered"
    problem(await queries.get("/customers/ada/erasure"), 404, "customer-not-erased")
    token = await erase(commands, "ada")
    await eventually(lambda: _nothing_is_left(queries, token))
    await register(commands, "ada", name="Eve")  # of another person under the id, the report says nothing
    await eventually(lambda: _nothing_is_left(queries, token))


async def _nothing_is_left(queries: httpx.AsyncClient, token: str) -> bool:
    answer = await queries.get("/customers/ada/erasure", headers={"Consistency-Token": token})
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert [one["store"] for one in report["stores"]] == ["keys", "events", "read model", "cached keys"]
    assert report["stores"][:2] == [
        {"store": "keys", "searched": 1, "found": 0},
        {"store": "events", "searched": len(texts([PERSON, ADDRESS, METHOD])), "found": 0},
    ]
    return all(store["found"] == 0 for store in report["stores"])


async def test_a_customer_with_orders_who_was_never_registered_is_erased(shop: Shop) -> None:
    commands, queries = shop
    assert (await commands.post("/orders", json=order_body(customer_id="guest"))).status_code == 201
    token = await erase(commands, "guest")
    customer = await shown(queries, "guest", token)
    assert (customer["status"], customer["registered_at"], customer["version"]) == ("erased", None, 1)
    report = (await queries.get("/customers/guest/erasure", headers={"Consistency-Token": token})).json()
    assert [store["found"] for store in report["stores"]] == [0, 0, 0, 0]
    assert (await shown(queries, "guest", await register(commands, "guest")))["name"] == PERSON["name"]


async def test_an_erasure_again_destroys_a_key_that_came_after_the_first(shop: Shop) -> None:
    commands, queries = shop
    registration: Any = {"json": {"customer_id": "ada", **PERSON}, "headers": {"Idempotency-Key": "registration"}}
    assert (await commands.post("/customers", **registration)).status_code == 201
    await erase(commands, "ada")
    repeated = await commands.post("/customers", **registration)  # it makes a key, and nothing is registered
    assert repeated.json()["version"] == 1
    order = order_body(customer_id="ada", order_id="noted", note=NOTE)
    token = (await commands.post("/orders", json=order)).json()["consistency_token"]
    assert (await _order(queries, "noted", token))["note"] == NOTE
    token = await erase(commands, "ada")
    await eventually(lambda: _has_no_note(queries, token))
    assert await erase(commands, "ada") == token, "nothing was left to destroy"


async def _order(queries: httpx.AsyncClient, order_id: str, token: str) -> Any:
    headers = {"Consistency-Token": token, "Prefer": "wait=20"}
    answer = await queries.get(f"/orders/{order_id}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def _has_no_note(queries: httpx.AsyncClient, token: str) -> bool:
    return bool((await _order(queries, "noted", token))["note"] is None)


async def test_what_is_neither_registered_nor_has_orders_cannot_be_erased(commands: httpx.AsyncClient) -> None:
    answer = await commands.post("/customers/unknown/erasure", json={"reason": "other"})
    problem(answer, 404, "customer-not-found")
    problem(await commands.patch("/customers/unknown", json={"name": "Ada"}), 404, "customer-not-found")


async def test_without_a_key_encryption_key_nothing_is_registered(settings: Settings) -> None:
    without = settings.model_copy(update={"key_encryption_key": None})
    async with running_command_service(without) as url, httpx.AsyncClient(base_url=url) as commands:
        answer = await commands.post("/customers", json={"customer_id": "ada", **PERSON})
        problem(answer, 503, "subject-keys-unavailable")
