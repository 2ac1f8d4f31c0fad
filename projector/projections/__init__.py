"""The registry of projections: a new one is a module here and a line below."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from projector.projection import Projection
from projector.projections.orders import ORDERS
from projector.projections.revenue_by_day import REVENUE_BY_DAY


class Registered(NamedTuple):
    """A projection and where its read model is kept."""

    projection: Projection[Any]
    kept_in: Literal["redis", "postgresql"]


PROJECTIONS = (Registered(ORDERS, "redis"), Registered(REVENUE_BY_DAY, "postgresql"))
