"""The registry of projections: a new one is a module here and a line at the end of this file.

Workers, partitions, lag, rebuild, verification, status and alerts follow from its entry.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

from projector.projection import Projection
from projector.projections.accounts import ACCOUNTS
from projector.projections.categories import CATEGORIES
from projector.projections.customers import CUSTOMERS
from projector.projections.orders import ORDERS
from projector.projections.processes import PROCESSES
from projector.projections.products import PRODUCTS
from projector.projections.revenue_by_day import REVENUE_BY_DAY
from projector.projections.stock import STOCKS

StoreName: TypeAlias = Literal["redis", "postgresql"]


class RegisteredProjection(NamedTuple):
    """A projection, and the store of its read model."""

    projection: Projection[Any]
    store: StoreName


PROJECTIONS: dict[str, RegisteredProjection] = {}  # by name


def register(projection: Projection[Any], store: StoreName) -> None:
    """Adds a projection. Raises `ValueError` where there is one of that name."""
    if projection.name in PROJECTIONS:
        raise ValueError(f"there is a projection {projection.name!r} already")
    PROJECTIONS[projection.name] = RegisteredProjection(projection, store)


register(ORDERS, "redis")
register(REVENUE_BY_DAY, "postgresql")
register(ACCOUNTS, "redis")
register(CUSTOMERS, "redis")
register(STOCKS, "redis")
register(PROCESSES, "redis")
register(PRODUCTS, "redis")
register(CATEGORIES, "redis")
