"""What the sandbox refuses."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import Invalid


@dataclass
class EffectRefused(Invalid):
    """Nothing was done."""

    reason: str
    code = "effect-refused"
    title = "The sandbox does not accept the effect"

    @property
    def detail(self) -> str:
        return f"The sandbox does not accept the effect: {self.reason}."
