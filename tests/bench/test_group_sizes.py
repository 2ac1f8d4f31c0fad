"""How the bench tells the size of the groups that were appended."""

from __future__ import annotations

from bench.group_sizes import GroupSizes


def test_the_size_of_groups_is_their_mean_since_it_was_asked_before() -> None:
    before = GroupSizes(groups=1, commands=1_000)
    assert GroupSizes(groups=3, commands=1_048).summary(before) == "appended in groups of 24.0 (mean)"
