"""The registry of projections: a new one is a module here and a line below."""

from __future__ import annotations

from projector.projections.orders import ORDERS

PROJECTIONS = (ORDERS,)
