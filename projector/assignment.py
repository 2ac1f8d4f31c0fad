"""How processes share partitions: each computes the same assignment from what it reads of all. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple


class PartitionOwners(NamedTuple):
    """Which session holds the lease of a partition, and which are candidates for it."""

    name: str
    holder: int | None
    candidates: frozenset[int]


PATIENCE_SECONDS = 3.0  # in which a candidate polls three times

_NOTHING: Mapping[int, int] = MappingProxyType({})


def assign(owners: Sequence[PartitionOwners], elsewhere: Mapping[int, int] = _NOTHING) -> dict[str, int]:
    """Which session should hold which partition. `elsewhere`: how many leases of other names each session holds.

    Processes of two releases do not know the same read models. If they counted only what they know, each could leave a
    partition to the other, for ever.

    A free partition goes to the candidate with the fewest; then one at a time moves from a session to one that has
    fewer by two or more. So where all are equal, or nearly so, nothing moves. A holder that is no candidate keeps its
    partition.
    """
    owners = sorted(owners)
    assigned = {one.name: one.holder for one in owners if one.holder is not None}
    load = Counter(assigned.values())
    load.update(elsewhere)

    def least(candidates: frozenset[int]) -> int:
        return min(candidates, key=lambda candidate: (load[candidate], candidate))

    for one in owners:
        if one.holder is None and one.candidates:
            assigned[one.name] = least(one.candidates)
            load[assigned[one.name]] += 1

    moving = True
    while moving:
        moving = False
        for one in sorted(owners, key=lambda one: -load[assigned.get(one.name, 0)]):
            giver = assigned.get(one.name)
            if giver in one.candidates and load[giver] - load[taker := least(one.candidates)] >= 2:
                assigned[one.name] = taker
                load[giver] -= 1
                load[taker] += 1
                moving = True
                break
    return assigned


class Assignment:
    """As one process computes it, poll after poll.

    A candidate that does not take a partition that is assigned to it, for whatever reason, is waited for no longer than
    `PATIENCE_SECONDS`. Then any other candidate takes the partition, and does not hand it back to that one.
    """

    def __init__(self, me: int) -> None:
        self._me = me
        self._free_since: dict[str, float] = {}  # of partitions that are assigned to others
        self._left: set[tuple[str, int]] = set()  # by which session, as long as it is a candidate

    def assign(self, owners: Sequence[PartitionOwners], elsewhere: Mapping[int, int], now: float) -> dict[str, int]:
        """As the function, of what is read at that time."""
        candidates = {(one.name, pid) for one in owners for pid in one.candidates if pid != one.holder}
        self._left &= candidates
        owners = [
            one._replace(candidates=frozenset(pid for pid in one.candidates if (one.name, pid) not in self._left))
            for one in owners
        ]
        assigned = assign(owners, elsewhere)
        free = [one for one in owners if one.holder is None and assigned.get(one.name, self._me) != self._me]
        self._free_since = {one.name: self._free_since.get(one.name, now) for one in free}
        for one in free:
            if self._me in one.candidates and now - self._free_since[one.name] >= PATIENCE_SECONDS:
                self._left.add((one.name, assigned[one.name]))
                assigned[one.name] = self._me
        return assigned
