"""The generations of one read model in a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from projector.stores.inspection import Inspection
from projector.stores.store import Store
from shared.read_models.keys import Checkpoint, Generations


class GenerationStore(Protocol):
    """Where the generations of one read model are kept. Every method raises what is in `store.UNAVAILABLE`."""

    async def generations(self) -> Generations: ...

    async def initialise(self, partitions: int) -> Generations:
        """Divides the first generation into so many partitions, where there is nothing of the read model yet."""
        ...

    def store(self, generation: int, partition: int = 0, partitions: int = 1, *, announce: bool = True) -> Store:
        """A partition of so many of one of them, there or not yet.

        `announce`: publish its checkpoints; not while it is built.
        """
        ...

    def inspection(self, generation: int, partition: int = 0, partitions: int = 1) -> Inspection:
        """To verify a partition of so many of one of them."""
        ...

    async def begin(self, partitions: int) -> int:
        """The generation to build beside the live one: the one that was begun, else a new number with so many
        partitions."""
        ...

    async def checkpoints(self, generation: int) -> Sequence[Checkpoint | None]:
        """Those of its partitions."""
        ...

    async def switch(self, live: int, other: int, seen: Sequence[Checkpoint | None] = ()) -> bool:
        """Answers queries from `other` from now on, atomically, and keeps `live` as the previous one.

        False, and nothing changes, when `live` is not the live one, or when `other` shows less of the log than it: when
        one of its partitions is behind one of the other's. Where the store cannot compare and switch in one step, it
        compares with `seen`, the `checkpoints` of the live one a moment ago: under load that one always moves.
        """
        ...

    async def drop(self, generation: int) -> bool:
        """Removes it; False when it is the live one, or when a projector claims it meanwhile."""
        ...

    async def reconnect(self) -> None:
        """Trusts no connection that is open now: the server was away, and a connection may be dead without a word."""
        ...


def is_no_older(to: Sequence[Checkpoint | None], start: Sequence[Checkpoint | None]) -> bool:
    """Whether every partition of one generation shows all that any partition of the other shows."""
    reached = Checkpoint.slowest(to)
    if reached is None or reached.rebuilding:
        return False
    return all(one is None or one.log_id != reached.log_id or one.position <= reached.position for one in start)
