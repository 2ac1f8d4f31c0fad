"""How projectors share partitions: fairly, and without moving what need not move."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.assignment import PATIENCE_SECONDS, Assignment, PartitionOwners, assign

projectors = st.integers(1, 5)
NAMES = [f"{{orders.{partition}}}:" for partition in range(12)]


@st.composite
def partition_owners(draw: st.DrawFn, *, all_willing: bool = False) -> list[PartitionOwners]:
    there = draw(st.frozensets(projectors, min_size=1))
    seen = []
    for name in NAMES[: draw(st.integers(1, len(NAMES)))]:
        willing = there if all_willing else draw(st.frozensets(st.sampled_from(sorted(there))))
        seen.append(PartitionOwners(name, draw(st.none() | st.sampled_from(sorted(there))), willing))
    return seen


def as_shared(seen: list[PartitionOwners]) -> list[PartitionOwners]:
    """Once every process has done its part."""
    shares = assign(seen)
    return [one._replace(holder=shares.get(one.name)) for one in seen]


@pytest.mark.promise("projectors", "No partition moves while no projector joins or leaves")
@given(partition_owners())
def test_once_shared_nothing_moves(seen: list[PartitionOwners]) -> None:
    settled = as_shared(seen)

    assert as_shared(settled) == settled


@given(partition_owners(all_willing=True))
def test_nobody_has_two_more_than_another(seen: list[PartitionOwners]) -> None:
    load = Counter(one.holder for one in as_shared(seen))

    loads = [load[projector] for projector in seen[0].candidates]
    assert max(loads) - min(loads) <= 1
    assert sum(loads) == len(seen)


@given(partition_owners())
def test_what_anybody_would_take_is_taken_and_by_nobody_who_would_not(seen: list[PartitionOwners]) -> None:
    for before, after in zip(seen, as_shared(seen), strict=True):
        if after.holder != before.holder:
            assert after.holder in before.candidates
        if before.candidates:
            assert after.holder is not None


@given(partition_owners(), st.randoms(use_true_random=False))
def test_everybody_works_out_the_same(seen: list[PartitionOwners], random: object) -> None:
    shuffled = [*seen]
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert assign(shuffled) == assign(seen)


def test_only_as_many_move_as_must() -> None:
    held = [PartitionOwners(name, 1 if nr < 6 else 2, frozenset({1, 2, 3})) for nr, name in enumerate(NAMES)]

    moved = [
        (before.holder, after.holder)
        for before, after in zip(held, as_shared(held), strict=True)
        if before.holder != after.holder
    ]

    assert Counter(moved) == {(1, 3): 2, (2, 3): 2}


def test_who_knows_nothing_of_candidates_keeps_what_it_has() -> None:
    older = [PartitionOwners(name, 9, frozenset({1, 2})) for name in NAMES]

    assert set(assign(older).values()) == {9}


MOST_READS = 20 * len(NAMES)


@dataclass
class Releases:
    """Processes of which each sees the partitions of some read models only, as those of two releases do. Some read
    the owners and join, and never take a partition."""

    seen_by: dict[int, list[str]]
    idlers: frozenset[int]
    holders: dict[str, int] = field(default_factory=dict)
    now: float = 0.0
    quiet_since: float = 0.0

    def __post_init__(self) -> None:
        self._sharing = {process: Assignment(process) for process in self.seen_by}

    def read_owners(self, process: int) -> None:
        """It reads the owners, releases what is another's share, and takes what is free and its own."""
        seen = [PartitionOwners(name, self.holders.get(name), self._willing(name)) for name in self.seen_by[process]]
        elsewhere = Counter(holder for name, holder in self.holders.items() if name not in self.seen_by[process])
        before = {**self.holders}
        shares = self._sharing[process].assign(seen, elsewhere, self.now)
        for one in seen:
            if one.holder == process != shares[one.name]:
                del self.holders[one.name]
            elif one.holder is None and shares[one.name] == process and process not in self.idlers:
                self.holders[one.name] = process
        if self.holders != before:
            self.quiet_since = self.now

    def _willing(self, name: str) -> frozenset[int]:
        return frozenset(process for process, names in self.seen_by.items() if name in names)


@pytest.mark.promise(
    "projectors", "No partition stays without an owner, even where projectors know different read models"
)
@given(
    st.dictionaries(projectors, st.lists(st.sampled_from(NAMES), unique=True), min_size=1),
    st.frozensets(projectors, max_size=3),
    st.data(),
)
def test_nobody_leaves_a_partition_to_another_who_leaves_it_to_them(
    seen_by: dict[int, list[str]], idlers: frozenset[int], data: st.DataObject
) -> None:
    names = {name for process, names in seen_by.items() if process not in idlers for name in names}
    processes = st.permutations(sorted(seen_by))
    releases = Releases(seen_by, idlers)
    for name in data.draw(st.lists(st.sampled_from(sorted(names)), unique=True) if names else st.just([])):
        releases.holders[name] = data.draw(st.sampled_from([nr for nr, seen in seen_by.items() if name in seen]))

    while releases.now - releases.quiet_since <= 2 * PATIENCE_SECONDS:
        for process in data.draw(processes):
            releases.read_owners(process)
        releases.now += 1.0
        assert releases.now < MOST_READS, "partitions go round for ever"

    assert names <= releases.holders.keys()
