"""What the bodies of all commands have in common. Unknown fields are refused, numbers are not guessed from strings."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from shared.aggregates.address import Address
from shared.currencies import CURRENCIES
from shared.http.fields import CURRENCY_PATTERN, NOT_A_CURRENCY, StoredTime
from shared.http.form_errors import format_of

_NO_CONTROL_CHARACTERS = format_of(
    r"^[^\x00-\x1f\x7f]+$", "not-a-line", "Give a text of at least one character, without line breaks and tabs."
)

ShortText = Annotated[str, StringConstraints(pattern=_NO_CONTROL_CHARACTERS, max_length=100)]
Text = Annotated[str, StringConstraints(pattern=_NO_CONTROL_CHARACTERS, max_length=500)]


def _known_currency(code: str) -> str:
    if code not in CURRENCIES:
        raise PydanticCustomError(*NOT_A_CURRENCY)
    return code


Currency = Annotated[
    str,
    AfterValidator(_known_currency),
    Field(pattern=CURRENCY_PATTERN, json_schema_extra={"enum": sorted(CURRENCIES)}),
]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CommandBody(Body):
    occurred_at: StoredTime | None = Field(
        None, description="business time, RFC 3339; default now", examples=["2026-01-31T14:30:00Z"]
    )


class AddressBody(Body):
    name: Text = Field(examples=["Ada Lovelace"])
    lines: list[Text] = Field(min_length=1, max_length=4, examples=[["12 St James's Square"]])
    city: Text = Field(examples=["London"])
    region: Text | None = Field(None, examples=["Greater London"])
    postal_code: ShortText | None = Field(None, examples=["SW1Y 4JH"])
    country: Annotated[
        str,
        StringConstraints(
            pattern=format_of(r"^[A-Z]{2}$", "not-a-country", "Give an ISO 3166 code of two letters, such as GB.")
        ),
    ] = Field(examples=["GB"])
    phone: ShortText | None = Field(None, examples=["+44 20 7946 0000"])

    def address(self) -> Address:
        return Address(self.name, tuple(self.lines), self.city, self.country, self.region, self.postal_code, self.phone)
