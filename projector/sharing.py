"""How processes share partitions: each works the same answer out from what it sees. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple


class Sighting(NamedTuple):
    """Who holds the lease of a partition, and who would."""

    name: str
    holder: int | None
    candidates: frozenset[int]


PATIENCE_SECONDS = 3.0  # three looks of whoever should take a partition

_NOTHING: Mapping[int, int] = MappingProxyType({})


def share_out(seen: Sequence[Sighting], elsewhere: Mapping[int, int] = _NOTHING) -> dict[str, int]:
    """Who should hold what. `elsewhere`: how many each holds of what is not seen here.

    Processes of two releases do not see the same read models. If they counted only what they see, each could leave a
    partition to the other, for ever.

    What nobody holds goes to the candidate with the least; then one at a time goes from one who has more to one who has
    less by two or more. So where all are equal, or as good as, nothing moves. Who holds something without standing for
    it (a program from before there were candidates) keeps it.
    """
    seen = sorted(seen)
    shares = {one.name: one.holder for one in seen if one.holder is not None}
    load = Counter(shares.values())
    load.update(elsewhere)

    def least(candidates: frozenset[int]) -> int:
        return min(candidates, key=lambda candidate: (load[candidate], candidate))

    for one in seen:
        if one.holder is None and one.candidates:
            shares[one.name] = least(one.candidates)
            load[shares[one.name]] += 1

    moving = True
    while moving:
        moving = False
        for one in sorted(seen, key=lambda one: -load[shares.get(one.name, 0)]):
            giver = shares.get(one.name)
            if giver in one.candidates and load[giver] - load[taker := least(one.candidates)] >= 2:
                shares[one.name] = taker
                load[giver] -= 1
                load[taker] += 1
                moving = True
                break
    return shares


class Sharing:
    """As one process works it out, look after look.

    Who should take a partition and does not, for whatever reason, is waited for no longer than a few looks: any other
    candidate takes it, and does not hand it back to who left it.
    """

    def __init__(self, me: int) -> None:
        self._me = me
        self._free_since: dict[str, float] = {}  # of what is another's to take
        self._left: set[tuple[str, int]] = set()  # by whom, as long as they stand for it

    def share_out(self, seen: Sequence[Sighting], elsewhere: Mapping[int, int], now: float) -> dict[str, int]:
        """As the function, of what is seen at that time."""
        standing = {(one.name, pid) for one in seen for pid in one.candidates if pid != one.holder}
        self._left &= standing
        seen = [
            one._replace(candidates=frozenset(pid for pid in one.candidates if (one.name, pid) not in self._left))
            for one in seen
        ]
        shares = share_out(seen, elsewhere)
        free = [one for one in seen if one.holder is None and shares.get(one.name, self._me) != self._me]
        self._free_since = {one.name: self._free_since.get(one.name, now) for one in free}
        for one in free:
            if self._me in one.candidates and now - self._free_since[one.name] >= PATIENCE_SECONDS:
                self._left.add((one.name, shares[one.name]))
                shares[one.name] = self._me
        return shares
