"""Customers for tests: bodies of requests, and a person whose every text is a canary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx

from tests.orders import TOTAL, order_body

PERSON: dict[str, Any] = {
    "name": "Canary Name",
    "email": "canary-email@example.org",
    "phone": "+44 canary phone",
    "locale": "en-canary",
}
ADDRESS: dict[str, Any] = {
    "name": "Canary Addressee",
    "lines": ["Canary Street 1", "Canary Floor"],
    "city": "Canaryville",
    "region": "Canary Region",
    "postal_code": "canary-code",
    "country": "GB",
    "phone": "+44 canary door",
}
METHOD: dict[str, Any] = {
    "provider": "canary-provider",
    "token": "canary-token",
    "brand": "CanaryCard",
    "last4": "9417",
    "expires": "2029-07",
}


ORDERS_ADDRESS: dict[str, Any] = {
    "name": "Canary Recipient",
    "lines": ["Canary Lane 2"],
    "city": "Canary City",
    "region": "Canary County",
    "postal_code": "canary-zip",
    "country": "GB",
    "phone": "+44 canary lane",
}
NOTE = "leave it with the canary"
REASONS = {name: f"because of the canary {name}" for name in ("move", "hold", "void", "refund", "return", "cancel")}


def texts(value: Any) -> list[str]:
    """Of a body, all that says something about the person."""
    if isinstance(value, dict):
        return [text for name, part in value.items() if name != "country" for text in texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in texts(part)]
    return [value]


CANARIES = texts([PERSON, ADDRESS, METHOD, ORDERS_ADDRESS, NOTE, REASONS])


def orders_in_every_state(customer_id: str) -> list[tuple[str, str, Any]]:
    """Requests that make them: method, path and body of each. The ids of the orders end with their states."""
    piece = [{"line_id": "1", "quantity": 1}]
    paid = ("POST", "payment", {"payment_reference": "{id}", "amount": TOTAL})
    shipped = ("POST", "shipment", {"tracking_number": "track-1"})
    authorised = {"payment_reference": "{id}", "amount": TOTAL, "captured": False}
    moved = {"shipping_address_id": "office", "reason": REASONS["move"], "shipping_address": ORDERS_ADDRESS}
    lives: dict[str, list[tuple[str, str, Any]]] = {
        "pending": [("PUT", "shipping-address", moved), ("POST", "hold", {"reason": REASONS["hold"]})],
        "voided": [("POST", "payments", authorised), ("POST", "payments/{id}/void", {"reason": REASONS["void"]})],
        "confirmed": [paid],
        "shipped": [paid, shipped],
        "delivered": [
            paid,
            shipped,
            ("POST", "delivery", {}),
            ("POST", "returns", {"return_id": "back", "lines": piece, "reason": REASONS["return"]}),
            ("POST", "returns/back/receipt", {"lines": [{**piece[0], "restock": True}]}),
            ("POST", "refunds", {"payment_reference": "{id}", "amount": 1, "reason": REASONS["refund"]}),
        ],
        "cancelled": [("POST", "cancellation", {"reason": REASONS["cancel"]})],
    }
    requests: list[tuple[str, str, Any]] = []
    for state, life in lives.items():
        order_id = f"{customer_id}-{state}"
        order = order_body(customer_id=customer_id, order_id=order_id, shipping_address=ORDERS_ADDRESS, note=NOTE)
        requests.append(("POST", "/orders", order))
        for method, path, body in life:
            named = {name: order_id if value == "{id}" else value for name, value in body.items()}
            requests.append((method, f"/orders/{order_id}/{path.format(id=order_id)}", named))
    return requests


def found(places: Iterable[str]) -> list[tuple[str, str]]:
    """(canary, where it is); those of few characters alone in quotes."""
    return [
        (canary, place[:1_000])
        for place in places
        for canary in CANARIES
        if f'"{canary}"' in place or (len(canary) > len("9417") + 3 and canary in place)
    ]


async def register(commands: httpx.AsyncClient, customer_id: str, **changes: Any) -> str:
    """The token of its last acknowledgement. The customer has an address and a payment method."""
    answers = [
        await commands.post("/customers", json={"customer_id": customer_id, **PERSON, **changes}),
        await commands.put(f"/customers/{customer_id}/addresses/home", json=ADDRESS),
        await commands.put(f"/customers/{customer_id}/payment-methods/card", json=METHOD),
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 200], [answer.text for answer in answers]
    return str(answers[-1].json()["consistency_token"])


async def erase(commands: httpx.AsyncClient, customer_id: str) -> str:
    """The token of the acknowledgement."""
    answer = await commands.post(f"/customers/{customer_id}/erasure", json={"reason": "customer-request"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["consistency_token"])


async def shown(queries: httpx.AsyncClient, customer_id: str, token: str, **times: str) -> dict[str, Any]:
    """The customer as the query service shows it."""
    answer = await queries.get(f"/customers/{customer_id}", params=times, headers={"Consistency-Token": token})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document
