"""The cache of states is bounded in bytes, and never underestimates what is in it by more than a factor."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_service.state_cache import LatestState, StateCache
from shared.eventstore.snapshots import LoadedState

MAX_BYTES = 50_000


def state(size: int, position: int = 0) -> LatestState:
    return LatestState(LoadedState("x" * (size - 2), 1, position))


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(2, 12_000), st.booleans())))
@pytest.mark.bound("command", "cached states")
def test_it_holds_the_states_that_were_used_last_and_never_more_than_its_bound(
    puts: list[tuple[str, int, bool]],
) -> None:
    cache = StateCache(MAX_BYTES)
    used: dict[str, LatestState] = {}
    for name, size, in_log in puts:
        latest = state(size, position=int(in_log))
        cache.put(name, latest, added=size)
        used.pop(name, None)
        used[name] = latest
        assert cache.bytes <= MAX_BYTES

    kept = [name for name in used if cache.get(name) is used[name]]
    assert kept == [*used][len(used) - len(kept) :]
    assert len(cache) == len(kept)
    for name in kept:
        assert used[name].size >= len(msgspec.json.encode(used[name].loaded.state))
        cache.drop(name)
    assert cache.bytes == 0


def test_a_state_that_many_small_events_change_is_measured_again() -> None:
    cache = StateCache(MAX_BYTES)
    for _ in range(1_000):
        cache.put("a", state(100), added=300)
    assert cache.get("a") is not None
    assert cache.bytes < 20_000
