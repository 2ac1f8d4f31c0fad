"""Recognises what may be the number of a payment card. Pure."""

from __future__ import annotations

import re
from unicodedata import normalize

_GROUPS = re.compile(r"[^\W\d_]+|\d+")  # of letters, of digits; what is between them separates
_SHORTEST, _LONGEST = 13, 19  # digits


def has_card_number(text: str) -> bool:
    """Whether 13 to 19 digits, with separators or without, pass the Luhn check. Digits of any script count, and so do
    numbers inside a longer text; letters separate two numbers."""
    digits: list[str] = []  # groups of digits since the last letters
    for group in _GROUPS.findall(normalize("NFKC", text)):
        if not group[0].isdecimal():
            digits = []
            continue
        digits.append("".join([str(int(digit)) for digit in group]))
        number = ""
        for part in reversed(digits):
            number = part + number
            if len(number) > _LONGEST:
                break
            if len(number) >= _SHORTEST and _passes_luhn(number):
                return True
    return False


def _passes_luhn(number: str) -> bool:
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in number[-2::-2]]
    return (sum(doubled) + sum(map(int, number[::-2]))) % 10 == 0
