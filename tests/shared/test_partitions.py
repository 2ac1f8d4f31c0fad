"""Which partition something belongs to, and where several are together."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.read_models.keys import Checkpoint, PartitionKeys, partition_of
from shared.settings import Settings

keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=64)


@given(keys, st.integers(1, 64))
def test_every_key_has_one_partition(key: str, partitions: int) -> None:
    assert partition_of(key, partitions) in range(partitions)


def test_it_is_the_same_for_ever() -> None:
    """Documents lie where they were put: another hash would be a rebuild of every read model."""
    order_ids = ["536365", "C489449", "a", "Größe", "019a-7f"]

    assert [partition_of(order_id, 7) for order_id in order_ids] == [0, 0, 4, 6, 1]
    assert {partition_of(order_id, 1) for order_id in order_ids} == {0}


def test_ids_in_a_row_are_spread_evenly() -> None:
    counts = [0] * 8
    for number in range(10_000):
        counts[partition_of(str(536_365 + number), 8)] += 1

    assert min(counts) > 1_000


checkpoints = st.builds(
    Checkpoint, st.sampled_from([UUID(int=1), UUID(int=2)]), st.integers(0, 9), st.integers(0, 9), st.just(1)
)


@given(st.lists(st.none() | checkpoints, min_size=1, max_size=4))
def test_partitions_are_together_where_the_last_of_them_is(partitions: list[Checkpoint | None]) -> None:
    together = Checkpoint.slowest(partitions)

    known = [one for one in partitions if one is not None]
    if known != partitions or len({one.log_id for one in known}) > 1:
        assert together is None
    else:
        assert together is not None
        assert together.position == min(one.position for one in known)
        assert together.rebuilding == any(one.rebuilding for one in known)


def test_a_message_says_of_which_partition_it_is() -> None:
    keys = PartitionKeys("orders")

    assert [keys.partition_of_channel(one.channel) for one in keys.each(12)] == [*range(12)]


@pytest.mark.parametrize("text", ["orders", "orders=0", "orders=65", "orders=-1", "orders=4,", "Orders=4"])
def test_a_count_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"database_url": "x", "redis_url": "x", "projector_partitions": text})
