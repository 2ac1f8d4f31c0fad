"""Arrays for PostgreSQL, without asking each element whether it is one itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle


class FlatArray:
    """What asyncpg sends as an array of one dimension, in half the time; any number of times.

    asyncpg goes through an array twice. First it asks each element whether it is an array, by `isinstance` against
    abstract classes, which takes longer than all else that it does to send it; then it encodes them. The first pass is
    shown nothing. Should a version of asyncpg go through it in another way, the message holds fewer elements than the
    length that it names, and the server refuses it: nothing is ever stored in part.
    """

    __slots__ = ("_elements", "_passes")

    def __init__(self, elements: Sequence[object]) -> None:
        self._elements = elements
        self._passes = cycle(((), elements))

    def __len__(self) -> int:
        return len(self._elements)

    def __iter__(self) -> Iterator[object]:
        return iter(next(self._passes))


def array_or_null(elements: Sequence[object]) -> FlatArray | None:
    """NULL where all elements are, for a statement that takes them by `unnest` beside other arrays, where a shorter
    one is filled up with nulls."""
    return None if elements.count(None) == len(elements) else FlatArray(elements)
