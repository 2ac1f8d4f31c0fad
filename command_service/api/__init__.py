"""The registry of routers: a new one is a module here and a line at the end of this file."""

from __future__ import annotations

from fastapi import APIRouter

from command_service.api import (
    accounts,
    customers,
    gateways,
    order_parcels,
    order_payments,
    orders,
    processes,
    products,
    stock,
)

ROUTERS: dict[str, tuple[APIRouter, str]] = {}  # by tag; each with the description of its tag


def register(router: APIRouter, description: str) -> None:
    """Adds the routes of an aggregate, which have one tag."""
    (tag,) = router.tags
    ROUTERS[str(tag)] = (router, description)


register(orders.router, orders.DESCRIPTION)
register(order_payments.router, order_payments.DESCRIPTION)
register(order_parcels.router, order_parcels.DESCRIPTION)
register(accounts.router, accounts.DESCRIPTION)
register(customers.router, customers.DESCRIPTION)
register(products.router, products.DESCRIPTION)
register(stock.router, stock.DESCRIPTION)
register(processes.router, processes.DESCRIPTION)
register(gateways.router, gateways.DESCRIPTION)
