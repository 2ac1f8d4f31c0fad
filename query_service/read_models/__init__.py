"""The registry of read models: a new one is a module here, named as its projection, and a line at the end."""

from __future__ import annotations

from typing import Any

from query_service.read_model import ReadModel
from query_service.read_models.accounts import ACCOUNTS
from query_service.read_models.categories import CATEGORIES
from query_service.read_models.customers import CUSTOMERS
from query_service.read_models.orders import ORDERS
from query_service.read_models.processes import PROCESSES
from query_service.read_models.products import PRODUCTS
from query_service.read_models.revenue_by_day import REVENUE_BY_DAY
from query_service.read_models.stock import STOCKS

READ_MODELS: dict[str, ReadModel[Any, Any]] = {}  # by name


def register(read_model: ReadModel[Any, Any]) -> None:
    """Adds a read model. Raises `ValueError` for a name that is in use."""
    if read_model.name in READ_MODELS:
        raise ValueError(f"Read model {read_model.name!r} is registered already.")
    READ_MODELS[read_model.name] = read_model


register(ORDERS)
register(REVENUE_BY_DAY)
register(ACCOUNTS)
register(CUSTOMERS)
register(STOCKS)
register(PROCESSES)
register(PRODUCTS)
register(CATEGORIES)
