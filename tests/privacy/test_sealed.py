"""Sealed values open with their key, as their field of their subject, and in no other way."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.privacy.sealed import KEY_BYTES, SubjectKey, Unopenable, key_id_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEY = SubjectKey("a" * 16, "customer-1", bytes(range(KEY_BYTES)))


@given(TEXT, TEXT)
def test_a_value_opens_as_what_was_sealed(field: str, text: str) -> None:
    sealed = KEY.seal(field, text)
    assert KEY.open(field, sealed) == text
    assert key_id_of(sealed) == KEY.key_id


@given(TEXT)
@pytest.mark.promise("privacy", "The same text of one subject and field is sealed as the same value")
def test_the_same_text_is_the_same_value(text: str) -> None:
    assert KEY.seal("email", text) == KEY.seal("email", text)
    assert KEY.seal("email", text) != KEY.seal("phone", text)


@given(st.text("abc", min_size=1), st.text("abc", min_size=1))
@pytest.mark.promise("privacy", "A sealed value opens neither as another field nor as another subject's")
def test_a_value_that_was_moved_does_not_open(field: str, other: str) -> None:
    assume(field != other)
    sealed = KEY.seal(field, "ada@example.org")
    with pytest.raises(Unopenable):
        KEY.open(other, sealed)
    with pytest.raises(Unopenable):
        SubjectKey(KEY.key_id, "customer-2", bytes(range(KEY_BYTES))).open(field, sealed)
    with pytest.raises(Unopenable):
        SubjectKey(KEY.key_id, "customer-1", bytes(KEY_BYTES)[:-1] + b"x").open(field, sealed)


@given(st.integers(0), st.integers(1, 255))
def test_a_damaged_value_does_not_open(place: int, change: int) -> None:
    sealed = KEY.seal("email", "ada@example.org")
    begin = len("sealed:1:") + 17
    at = begin + place % (len(sealed) - begin)
    damaged = sealed[:at] + chr((ord(sealed[at]) + change) % 128) + sealed[at + 1 :]
    assume(damaged != sealed)
    try:
        # The last character has bits that count for nothing.
        assert KEY.open("email", damaged) == "ada@example.org"
        assert at == len(sealed) - 1
    except Unopenable:
        pass


@pytest.mark.parametrize(
    "text", ["", "ada", "sealed:1:short:AAAA", "sealed:2:aaaaaaaaaaaaaaaa:AAAAAAAAAAAAAAAAAAAAAAAA"]
)
def test_other_texts_are_not_sealed(text: str) -> None:
    assert key_id_of(text) is None
    with pytest.raises(Unopenable):
        KEY.open("email", text)
