"""The message that announces a checkpoint is its consistency token, as text."""

from __future__ import annotations

from hypothesis import given as for_all
from hypothesis import strategies as st

from shared.eventstore.token import ConsistencyToken, MalformedToken
from shared.read_models.checkpoint_message import decode

tokens = st.builds(ConsistencyToken, st.uuids(), st.integers(0, 2**63 - 1))


@for_all(tokens)
def test_a_message_is_read_as_the_token_that_was_published(token: ConsistencyToken) -> None:
    assert decode(token.encode().encode()) == token


@for_all(st.one_of(st.binary(), tokens.map(lambda token: f"{token.encode()} [1,[]]".encode())))
def test_any_other_message_is_refused(text: bytes) -> None:
    try:
        token = decode(text)
    except (MalformedToken, ValueError):
        return
    assert token.encode().encode() == text
