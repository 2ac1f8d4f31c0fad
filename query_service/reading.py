"""What is read from a read model in Redis, and what it shows."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from shared.read_models.keys import Checkpoint

T = TypeVar("T")


class At(NamedTuple):
    """The place in the log that an answer shows; `token` is its text, made once for all answers of one place."""

    checkpoint: Checkpoint
    token: str


class Reading(NamedTuple, Generic[T]):
    """`at` is None when there is no read model at all; then `value` means nothing.

    `behind` is the partition that keeps it from being of a later place.
    """

    at: At | None
    value: T
    behind: int = 0


class Document(NamedTuple):
    """`body` is JSON, ready to be served; None when there is no such document.

    `parked` is a `shared.read_models.poison.Poison`: the event that could not be applied to it. The document shows
    nothing from that event on.
    """

    body: bytes | None
    version: bytes | None
    parked: bytes | None = None


class Page(NamedTuple):
    """`next_place` is where the next page starts, None on the last one."""

    next_place: bytes | None
    summaries: list[bytes]


class Layout(NamedTuple):
    """Which generation is live, how often that has changed, and how many partitions it has."""

    generation: int
    switches: int
    partitions: int
