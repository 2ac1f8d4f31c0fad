"""Sides that are compared take turns, so that a machine that is slow for a while is slow for each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def interleave(rounds: int, *sides: Callable[[], T]) -> list[list[T]]:
    """What each side measured, round by round. Every other round goes the other way round, so that a machine that
    becomes slower or faster all the time favours nobody."""
    measured: list[list[T]] = [[] for _ in sides]
    order = list(zip(sides, measured, strict=True))
    for _ in range(rounds):
        for side, results in order:
            results.append(side())
        order.reverse()
    return measured
