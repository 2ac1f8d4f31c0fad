"""Compares read models with the log. Nothing here uses the engine, the projections or the codec: what is wrong there
must not be wrong here in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MOST_SHOWN = 10


@dataclass(slots=True)
class Comparison:
    """How many documents were compared, up to which position of the log, and in what they differ."""

    position: int = 0
    compared: int = 0
    differences: int = 0
    shown: list[str] = field(default_factory=list)  # the first of them

    def differs(self, what: str) -> None:
        self.differences += 1
        if len(self.shown) < MOST_SHOWN:
            self.shown.append(what)

    def __str__(self) -> str:
        return f"{self.compared} documents compared, {self.differences} differences" + "".join(
            f"\n  {what}" for what in self.shown
        )
