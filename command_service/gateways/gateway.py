"""What a gateway is: it carries out effects, each at most once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from shared.errors import OutcomeUnknown, Unavailable


@dataclass
class GatewayUnavailable(Unavailable):
    code = "gateway-unavailable"
    title = "The gateway cannot be reached; nothing was done"


@dataclass
class GatewayOutcomeUnknown(OutcomeUnknown):
    code = "gateway-outcome-unknown"
    title = "It is not known whether the gateway did what it was asked for"


class Gateway(Protocol):
    """The effect's id is the idempotency key: the service carries out an effect of that id once and then repeats its
    answer. Both methods raise `GatewayUnavailable` (nothing was done) or `GatewayOutcomeUnknown`."""

    async def carry_out(self, effect_id: str, effect: Any) -> Any:
        """The outcome."""

    async def outcome_of(self, effect_id: str) -> Any | None:
        """The outcome of an effect that may have been carried out; None where it was not."""
