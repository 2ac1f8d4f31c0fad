"""A postal address as a value."""

from __future__ import annotations

import msgspec


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """Personal data in every field but `country`, an ISO 3166 code of two letters."""

    name: str
    lines: tuple[str, ...]  # street, house number and the like: 1 to 4
    city: str
    country: str
    region: str | None = None
    postal_code: str | None = None
    phone: str | None = None
