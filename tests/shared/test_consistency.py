from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from shared.eventstore.token import ConsistencyToken, MalformedToken, UnknownLog

LOG = UUID("5f0c6f5e-0d3c-4e0f-b7a1-d0f8f2d0a9c4")
POSITIONS = st.integers(0, 2**63 - 1)
TOKENS = st.builds(ConsistencyToken, st.uuids(), POSITIONS)


@for_all(TOKENS)
def test_decoding_gives_back_what_was_encoded(token: ConsistencyToken) -> None:
    assert ConsistencyToken.decode(token.encode()) == token


@for_all(TOKENS)
def test_a_token_fits_into_a_header_and_an_address_as_it_is(token: ConsistencyToken) -> None:
    assert token.encode().isascii()
    assert token.encode().replace("-", "").isalnum()


@for_all(POSITIONS)
def test_a_token_of_this_log_says_the_position_to_wait_for(position: int) -> None:
    assert ConsistencyToken(LOG, position).position_in(LOG) == position


@for_all(TOKENS, st.uuids())
def test_a_token_of_another_log_names_it(token: ConsistencyToken, served: UUID) -> None:
    if token.log_id == served:
        assert token.position_in(served) == token.position
        return
    with pytest.raises(UnknownLog) as refusal:
        token.position_in(served)
    assert refusal.value.log_id == token.log_id
    assert str(token.log_id) in refusal.value.detail


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        LOG.hex,
        f"{LOG.hex}-",
        f"-{LOG.hex}-1",
        f"{LOG.hex}--1",
        f"{LOG.hex}-+1",
        f"{LOG.hex}-01",
        f"{LOG.hex}-1 ",
        f" {LOG.hex}-1",
        f"{LOG.hex}-1\n",
        f"{LOG.hex}-1.0",
        f"{LOG.hex}-0x1",
        f"{LOG.hex}-1_0",
        f"{LOG.hex}-{2**63}",
        f"{LOG.hex}-{'9' * 5_000}",
        f"{LOG.hex}-\N{ARABIC-INDIC DIGIT ONE}",
        f"{LOG.hex.upper()}-1",
        f"{LOG}-1",
        f"{LOG.hex[:-1]}-1",
        f"{LOG.hex}0-1",
        f"{LOG.hex[:-1]}g-1",
    ],
)
def test_what_is_not_a_token_is_refused(text: str) -> None:
    with pytest.raises(MalformedToken):
        ConsistencyToken.decode(text)


@for_all(st.text() | st.text("0123456789abcdef", min_size=31, max_size=33).map("{}-7".format) | POSITIONS.map(str))
def test_any_text_is_a_token_that_encodes_to_itself_or_is_refused(text: str) -> None:
    try:
        token = ConsistencyToken.decode(text)
    except MalformedToken:
        return
    assert token.encode() == text


@for_all(st.lists(POSITIONS, min_size=1), st.sampled_from([",", ", ", " ,\t"]))
def test_of_several_tokens_the_newest_counts(positions: list[int], comma: str) -> None:
    header = comma.join(ConsistencyToken(LOG, position).encode() for position in positions)
    assert ConsistencyToken.newest_of_each(header) == (ConsistencyToken(LOG, max(positions)),)


def test_of_tokens_of_several_feeds_the_newest_of_each_counts() -> None:
    other = UUID(int=1)
    tokens = [ConsistencyToken(LOG, 7), ConsistencyToken(other, 2), ConsistencyToken(LOG, 9), ConsistencyToken(LOG, 8)]
    header = ", ".join(token.encode() for token in tokens)
    assert ConsistencyToken.newest_of_each(header) == (ConsistencyToken(LOG, 9), ConsistencyToken(other, 2))


@pytest.mark.parametrize(
    "header", [",", f"{LOG.hex}-1,", f",{LOG.hex}-1", f"{LOG.hex}-1,,{LOG.hex}-1", f"{LOG.hex}-1, x"]
)
def test_a_list_with_what_is_not_a_token_is_refused(header: str) -> None:
    with pytest.raises(MalformedToken):
        ConsistencyToken.newest_of_each(header)
