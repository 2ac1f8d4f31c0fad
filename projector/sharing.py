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
