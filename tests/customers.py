"""Customers for tests: bodies of requests, and a person whose every text is a canary."""

from __future__ import annotations

from typing import Any

import httpx

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


def texts(value: Any) -> list[str]:
    """Of a body, all that says something about the person."""
    if isinstance(value, dict):
        return [text for name, part in value.items() if name != "country" for text in texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in texts(part)]
    return [value]


CANARIES = texts([PERSON, ADDRESS, METHOD])


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
