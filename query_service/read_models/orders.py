"""The orders read model: one order, all orders, a customer's orders."""

from __future__ import annotations

import asyncio

from query_service.reader import Reader
from query_service.reading import Document, Page, Reading
from shared.aggregates.order import OrderStatus
from shared.eventstore.token import ConsistencyToken
from shared.read_models import keys

NAME = "orders"


class Orders:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def one(self, order_id: str, at_least: ConsistencyToken | None) -> asyncio.Future[Reading[Document]]:
        return self._reader.document(order_id, at_least)

    def newest(
        self, customer_id: str | None, status: OrderStatus | None, after: str | None, limit: int
    ) -> asyncio.Future[Reading[Page]]:
        """The newest orders that there are of this customer and in this status (None: any), after a place."""
        return self._reader.page(_index(customer_id, status), after, limit)


def _index(customer_id: str | None, status: OrderStatus | None) -> str:
    if customer_id is None:
        return keys.ALL if status is None else keys.with_status(status)
    if status is None:
        return keys.of_customer(customer_id)
    return keys.of_customer_with_status(customer_id, status)
