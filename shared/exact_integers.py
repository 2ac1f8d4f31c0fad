"""Integers in JSON: which ones every reader represents exactly."""

from __future__ import annotations

MAX_EXACT_INTEGER = 2**53 - 1


def exact(number: int) -> int | str:
    """The number; its decimal digits where a reader that takes numbers for doubles, as browsers do, would round it."""
    return number if abs(number) <= MAX_EXACT_INTEGER else str(number)
