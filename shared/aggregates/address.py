"""A postal address as a value."""

from __future__ import annotations

from collections.abc import Callable

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


def change_texts(address: Address, change: Callable[[str, str], str]) -> Address:
    """The address with each text that says something about the person changed. `change` gets the field's name, such as
    `address.city`, and the text."""

    def changed(field: str, text: str | None) -> str | None:
        return None if text is None else change(f"address.{field}", text)

    return Address(
        change("address.name", address.name),
        tuple([change("address.lines", line) for line in address.lines]),
        change("address.city", address.city),
        address.country,
        changed("region", address.region),
        changed("postal_code", address.postal_code),
        changed("phone", address.phone),
    )
