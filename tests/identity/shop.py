"""A shop whose callers identify themselves, and a request for each of its routes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx

from shared.settings import Settings
from tests.customers import ADDRESS, METHOD
from tests.identity.issuer import Issuer, bearer
from tests.orders import order_body
from tests.running import eventually

OWNER, OTHER = "17850", "13047"
ORDER, ABSENT = "owned-1", "other-1"  # of equal length, for headers that count
ACCOUNT, OTHER_ACCOUNT = ORDER, "owned-2"  # an id is one of an order and of an account
NOTHING: Mapping[str, str] = MappingProxyType({})

LINE = {"product_id": "MUG", "quantity": 1, "unit_price": 450}
PIECES = [{"line_id": "1", "quantity": 1}]
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/orders"): order_body(customer_id=OWNER),
    ("POST", "/orders/{order_id}/items"): LINE,
    ("PUT", "/orders/{order_id}/shipping-address"): {"shipping_address_id": "work"},
    ("PUT", "/orders/{order_id}/lines/{line_id}"): {"quantity": 1},
    ("POST", "/orders/{order_id}/payment"): {"payment_reference": "p-1", "amount": 1},
    ("POST", "/orders/{order_id}/payments"): {"payment_reference": "p-2", "amount": 1, "account_id": ACCOUNT},
    ("POST", "/orders/{order_id}/payments/{payment_reference}/capture"): {"amount": 1},
    ("POST", "/orders/{order_id}/payments/{payment_reference}/void"): {},
    ("POST", "/orders/{order_id}/refunds"): {"payment_reference": "p-2", "amount": 1, "reason": "late"},
    ("POST", "/orders/{order_id}/shipment"): {"tracking_number": "t-1"},
    ("POST", "/orders/{order_id}/shipments"): {"tracking_number": "t-1", "lines": PIECES},
    ("POST", "/orders/{order_id}/shipments/{shipment_id}/delivery"): {},
    ("POST", "/orders/{order_id}/returns"): {"lines": PIECES, "reason": "broken"},
    ("POST", "/orders/{order_id}/returns/{return_id}/receipt"): {"lines": [{**PIECES[0], "restock": True}]},
    ("POST", "/orders/{order_id}/hold"): {"reason": "checked"},
    ("POST", "/orders/{order_id}/delivery"): {},
    ("POST", "/orders/{order_id}/cancellation"): {"reason": "ordered twice"},
    ("POST", "/customers"): {"customer_id": OWNER, "name": "Bob", "email": "bob@example.org"},
    ("PATCH", "/customers/{customer_id}"): {"name": "Robert"},
    ("PUT", "/customers/{customer_id}/email"): {"email": "robert@example.org"},
    ("PUT", "/customers/{customer_id}/addresses/{address_id}"): ADDRESS,
    ("PUT", "/customers/{customer_id}/payment-methods/{payment_method_id}"): METHOD,
    ("POST", "/customers/{customer_id}/erasure"): {"reason": "customer-request"},
    ("POST", "/accounts"): {"owner_id": OWNER, "currency": "GBP"},
    ("POST", "/accounts/{account_id}/deposits"): {"amount": 1, "reference": "salary"},
    ("POST", "/accounts/{account_id}/withdrawals"): {"amount": 1, "reference": "rent"},
    ("POST", "/accounts/{account_id}/interest"): {"annual_rate_bps": 0, "from": "2026-01-01", "to": "2026-01-02"},
    ("POST", "/transfers"): {
        "from_account_id": ACCOUNT,
        "to_account_id": OTHER_ACCOUNT,
        "amount": 1,
        "reference": "savings",
    },
    ("POST", "/processes/{process_id}/retry"): {},
    ("POST", "/processes/{process_id}/skip"): {"outcome": "Refunded"},
    ("POST", "/processes/{process_id}/compensate"): {},
    ("PUT", "/products/{product_id}"): {"name": "LANTERN", "unit_price": 1, "currency": "GBP"},
    ("POST", "/products/{product_id}/reviews"): {"customer_id": OWNER, "stars": 5},
    ("POST", "/products/{product_id}/stock/receipts"): {"quantity": 1_000},
    ("POST", "/products/{product_id}/stock/adjustments"): {"delta": 1, "reason": "found"},
}
QUERIES = {("GET", "/reports/revenue"): {"from": "2026-01-01", "to": "2026-01-31"}}


class Shop(NamedTuple):
    issuer: Issuer
    commands: httpx.AsyncClient
    queries: httpx.AsyncClient
    settings: Settings

    async def until_shown(self) -> None:
        """Until the read models show the whole log."""
        operator = bearer(self.issuer.token("operator"))

        async def shown() -> bool:
            status = (await self.queries.get("/projections", headers=operator)).json()
            return all(row["position_lag"] == 0 for row in status["projections"])

        await eventually(shown)

    async def ask(
        self,
        method: str,
        path: str,
        token: str | None = None,
        order_id: str = ORDER,
        params: Mapping[str, str] = NOTHING,
        headers: Mapping[str, str] = NOTHING,
    ) -> httpx.Response:
        """The answer; of an event stream its beginning."""
        client = self.commands if (method, path) in BODIES or method == "DELETE" else self.queries
        parts = {"line_id": "1", "payment_reference": "p-2", "payment_id": "p-2", "shipment_id": "1", "return_id": "1"}
        parts |= {"address_id": "home", "payment_method_id": "card", "transfer_id": "t-1", "process_id": "p-1"}
        parts |= {"customer_id": OWNER, "stock_id": "LANTERN"}
        parts["product_id"] = "LANTERN" if path.startswith("/products") else "LAMP"  # LAMP is of the orders
        url = path.format(order_id=order_id, account_id=order_id, **parts)
        request = client.build_request(
            method,
            url,
            json=BODIES.get((method, path)),
            params=QUERIES.get((method, path), {}) | dict(params),
            headers={**({} if token is None else bearer(token)), **headers},
        )
        answer = await client.send(request, stream=True)
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            await answer.aread()
        await answer.aclose()
        return answer
