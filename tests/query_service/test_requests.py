"""What a request may say: Prefer, If-None-Match and cursors, as text."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_service.api.requests import MalformedCursor, decode_cursor, encode_cursor, matches, preferred_wait
from shared.read_models.keys import is_index_entry, sort_key


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=0", 0),
        ("WAIT=5", 5),
        ('wait="5"', 5),
        ("respond-async, wait = 5; x=y", 5),
        ("wait=5, wait=6", 5),
        ("wait=31", 30),
        ("wait=999999", 30),
        ("wait=soon", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=٣", None),
        ("wait", None),
        ("await=5", None),
        ("", None),
        (None, None),
    ],
)
def test_a_wait_is_granted_up_to_a_limit_and_ignored_where_malformed(prefer: str | None, seconds: int | None) -> None:
    assert preferred_wait(prefer) == seconds


@pytest.mark.parametrize("known", ['"2"', 'W/"2"', '"1", "2"', '"1",W/"2" , "3"', "*", " * "])
def test_a_client_has_it_when_any_of_its_tags_is_the_current_one(known: str) -> None:
    assert matches(known, '"2"')


@pytest.mark.parametrize("known", ['"1"', '"22"', "2", '"1", "3"', "", '"2', '2"', '"*"'])
def test_a_client_does_not_have_it_otherwise(known: str) -> None:
    assert not matches(known, '"2"')


@given(st.datetimes(timezones=st.just(UTC)), st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True))
def test_a_cursor_leads_back_to_its_entry(at: datetime, order_id: str) -> None:
    place = sort_key(at, order_id)

    assert decode_cursor(encode_cursor(place)) == place


@given(st.text(max_size=200))
def test_any_text_is_the_cursor_of_an_entry_or_is_refused(text: str) -> None:
    with suppress(MalformedCursor):
        assert is_index_entry(decode_cursor(text))
