"""What a gateway is: it carries out effects, each at most once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from shared.errors import OrdersError, OutcomeUnknown, Unavailable


@dataclass
class GatewayUnavailable(Unavailable):
    reason: str = "it does not answer"
    retry_after: float = 1.0
    code = "gateway-unavailable"
    title = "The gateway cannot be reached; nothing was done"

    @property
    def detail(self) -> str:
        return f"The gateway cannot be reached: {self.reason}. Nothing was done."


@dataclass
class GatewayOutcomeUnknown(OutcomeUnknown):
    reason: str = "its answer was lost"
    code = "gateway-outcome-unknown"
    title = "It is not known whether the gateway did what it was asked for"

    @property
    def detail(self) -> str:
        return f"It is not known whether the gateway did what it was asked for: {self.reason}."


@dataclass
class GatewayRefused(OrdersError):
    """Nothing was done, and the same request will be refused again: a defect of this program or of the service."""

    reason: str
    code = "gateway-refused"
    title = "The gateway does not accept what it was asked for"

    @property
    def detail(self) -> str:
        return f"The gateway does not accept what it was asked for: {self.reason}."


class GatewayMissing(ValueError):
    """The settings do not say where a gateway is."""


class Gateway(Protocol):
    """The effect's id is the idempotency key: the service carries out an effect of that id once and then repeats its
    answer. Both methods raise `GatewayUnavailable`, `GatewayOutcomeUnknown` and `GatewayRefused`."""

    async def carry_out(self, effect_id: str, effect: Any) -> Any:
        """The outcome."""

    async def outcome_of(self, effect_id: str) -> Any | None:
        """The outcome of an effect that may have been carried out; None where it was not."""
