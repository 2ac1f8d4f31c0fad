"""Measures the sides of a comparison alternately, so that a slow phase of the machine affects all sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def interleave(rounds: int, *sides: Callable[[], T]) -> list[list[T]]:
    """Returns the figures of each side, round by round. Every other round runs in reverse order, so that a machine that
    slows down steadily favours no side."""
    measured: list[list[T]] = [[] for _ in sides]
    order = list(zip(sides, measured, strict=True))
    for _ in range(rounds):
        for side, results in order:
            results.append(side())
        order.reverse()
    return measured
