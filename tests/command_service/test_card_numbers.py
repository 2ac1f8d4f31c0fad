"""What may be the number of a payment card is recognised, however it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_service.domain.card_numbers import has_card_number

VISA = "4242424242424242"


def luhn_digit(digits: str) -> str:
    """The check digit, computed on its own."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


@given(st.text("0123456789", min_size=12, max_size=18), st.data())
def test_every_number_with_a_check_digit_is_recognised(digits: str, data: st.DataObject) -> None:
    number = digits + luhn_digit(digits)
    separators = data.draw(st.lists(st.sampled_from(["", " ", "-", ".", " - "]), min_size=len(number)))
    assert has_card_number("".join(map("".join, zip(number, separators, strict=False))))


@pytest.mark.parametrize(
    "text",
    [
        VISA,
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        f"tok_{VISA}",
        f"card {VISA} 12/27 123",
        "\uff14\uff12\uff14\uff12 4242 4242 4242",
    ],
)
def test_separators_and_a_text_around_hide_nothing(text: str) -> None:
    assert has_card_number(text)


@pytest.mark.parametrize(
    "text",
    ["", "tok_visa_tour", "4242", "4242424242424241", "019ab2f4-7c1e-7d35-9d2c-6a2f7a1c9b10", "1" * 12, "0" * 20],
)
def test_tokens_and_short_numbers_are_none(text: str) -> None:
    assert not has_card_number(text)
