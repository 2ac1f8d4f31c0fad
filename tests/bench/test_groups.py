"""How the bench tells the size of the groups that were appended."""

from __future__ import annotations

from bench import groups
from shared.metrics import APPEND_GROUP_COMMANDS


def test_the_size_of_groups_is_a_mean_of_those_since_it_was_asked_before() -> None:
    APPEND_GROUP_COMMANDS.observe(1_000)
    before = groups.of_this_process()
    for size in (32, 16):
        APPEND_GROUP_COMMANDS.observe(size)
    assert groups.of_this_process().in_words(before) == "appended in groups of 24.0 (mean)"
