"""Arrays for asyncpg to send without type checks of their elements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle


class FlatArray:
    """An array of one dimension that asyncpg sends in half the time. It may be sent any number of times.

    asyncpg iterates twice: once to find nested arrays, by `isinstance` against abstract classes, and once to encode.
    The first pass yields nothing here. If a version of asyncpg iterates in another way, the message has fewer elements
    than the length that it names, and the server refuses it: nothing is ever stored in part (decision 22).
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
    """The elements to send, or None if all of them are None or there are none: PostgreSQL reads NULL at any index of a
    null array."""
    return None if elements.count(None) == len(elements) else FlatArray(elements)
