"""What is published with a checkpoint, as text."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from shared.eventstore.token import ConsistencyToken, MalformedToken
from shared.read_models.checkpoint_message import (
    MOST_CHARACTERS,
    MOST_DOCUMENTS,
    Announcement,
    Written,
    WrittenDocument,
    encode,
)

TOKEN = ConsistencyToken(UUID(int=1), 7)
positions = st.integers(0, 2**63 - 1)
tokens = st.builds(ConsistencyToken, st.uuids(), positions)
documents = st.lists(st.builds(WrittenDocument, st.text(), st.text(max_size=500), st.text()), max_size=MOST_DOCUMENTS)


@for_all(tokens, st.integers(1, 2**63 - 1), documents)
def test_what_was_announced_is_heard(token: ConsistencyToken, generation: int, written: list[WrittenDocument]) -> None:
    text = encode(token, generation, written).encode()

    assert Announcement.decode(text) == Announcement(token, Written(generation, written))


@for_all(tokens)
def test_a_token_alone_says_nothing_of_documents(token: ConsistencyToken) -> None:
    assert encode(token, 1, None) == token.encode()
    assert Announcement.decode(token.encode().encode()) == Announcement(token)


@pytest.mark.parametrize(
    "written",
    [
        [WrittenDocument(str(number), "{}", "1") for number in range(MOST_DOCUMENTS + 1)],
        [WrittenDocument("1", "x" * MOST_CHARACTERS, "1"), WrittenDocument("2", "x", "1")],
    ],
    ids=["too many", "too large"],
)
def test_of_more_than_fits_nothing_is_said(written: list[WrittenDocument]) -> None:
    assert Announcement.decode(encode(TOKEN, 1, written).encode()).written is None
    assert Announcement.decode(encode(TOKEN, 1, written[:-1]).encode()).written is not None


@for_all(st.one_of(st.binary(), st.binary().map((TOKEN.encode() + " ").encode().__add__)))
def test_what_is_not_one_of_ours_is_refused_as_that(text: bytes) -> None:
    try:
        Announcement.decode(text)
    except (MalformedToken, ValueError):
        return
    assert text.startswith(TOKEN.encode().encode())
