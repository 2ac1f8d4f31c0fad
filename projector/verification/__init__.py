"""Compares read models with the log. Nothing here uses the engine, the projections or the codec: what is wrong there
must not be wrong here in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

MOST_SHOWN = 10

Report: TypeAlias = Callable[[str, int, int], None]  # (what is done, how many of them so far, of how many)


def unseen(what: str, done: int, total: int) -> None:
    """A report to nobody."""


@dataclass(slots=True)
class Comparison:
    """How many documents were compared, up to which position of the log, and in what they differ."""

    position: int = 0
    compared: int = 0
    differences: int = 0
    parked: int = 0  # streams that stop before an event that could not be applied: they differ, and why is known
    shown: list[str] = field(default_factory=list)  # the first of them

    def differs(self, what: str) -> None:
        self.differences += 1
        if len(self.shown) < MOST_SHOWN:
            self.shown.append(what)

    def __str__(self) -> str:
        parked = f", {self.parked} streams are parked" if self.parked else ""
        return f"{self.compared} documents compared, {self.differences} differences{parked}" + "".join(
            f"\n  {what}" for what in self.shown
        )

    def is_parked(self, order_id: str, record: str | bytes) -> None:
        poison = json.loads(record)
        self.parked += 1
        self.differs(
            f"order {order_id} is parked before position {poison['position']}, a {poison['event_type']}:"
            f" {poison['error']}"
        )
