"""The registry of read models: a new one is a module here, named as its projection, and an entry below."""

from __future__ import annotations

from typing import Any

from query_service.read_model import ReadModel
from query_service.read_models.orders import ORDERS
from query_service.read_models.revenue_by_day import REVENUE_BY_DAY

READ_MODELS: tuple[ReadModel[Any, Any], ...] = (ORDERS, REVENUE_BY_DAY)
