"""Types of request values that both services validate."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, StringConstraints
from pydantic_core import PydanticCustomError

from shared.http.form_errors import format_of

# Not of dots alone: clients and proxies take `/<collection>/..` for `/`, so no request could address such an id.
ID_PATTERN = format_of(
    r"^[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*$",
    "not-an-id",
    "Use letters A to Z, digits, dots, underscores and hyphens, and not dots alone.",
)

Id = Annotated[str, StringConstraints(pattern=ID_PATTERN, min_length=1, max_length=64)]
AnyId = Annotated[str, StringConstraints(pattern=ID_PATTERN, min_length=1)]  # the aggregate says how long it may be
# `<kind>-<id of its subject>`, and with a number behind it the id of an effect.
ProcessId = Annotated[str, StringConstraints(pattern=ID_PATTERN, min_length=1, max_length=128)]

PRODUCT_ID_PATTERN = format_of(
    r"^(?:[A-Za-z0-9._-][A-Za-z0-9._ -]*)?[A-Za-z0-9_-](?:[A-Za-z0-9._ -]*[A-Za-z0-9._-])?$",
    "not-a-product-id",
    "Use letters A to Z, digits, dots, underscores, hyphens and, inside, spaces; not dots alone.",
)
ProductId = Annotated[str, StringConstraints(pattern=PRODUCT_ID_PATTERN, min_length=1, max_length=64)]

NOT_A_CURRENCY = "not-a-currency", "Give an ISO 4217 currency code, such as GBP."
CURRENCY_PATTERN = format_of("^[A-Z]{3}$", *NOT_A_CURRENCY)

_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)
# PostgreSQL's driver stores these as infinities, which it reads back as times without arithmetic.
_STORED_AS_INFINITY = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def _only_rfc3339(value: object) -> object:
    # Pydantic would also take numbers, dates and times without seconds; the contract says RFC 3339.
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or (match := _RFC3339.fullmatch(value)) is None:
        text = "Give an RFC 3339 time with an offset, such as 2026-01-31T14:30:00Z."
        if isinstance(value, str) and _RFC3339.fullmatch(value.replace(" ", "+")):
            raise PydanticCustomError("not-a-time", f"{text} In a URL, write + as %2B.")
        raise PydanticCustomError("not-a-time", text)
    # PostgreSQL keeps microseconds; digits beyond that are cut, not refused.
    return re.sub(r"(\.\d{6})\d+", r"\1", value) if match[1] else value


_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _only_dates(value: object) -> object:
    # Pydantic would also take times and seconds since 1970.
    if not isinstance(value, str) or _DATE.fullmatch(value) is None:
        raise PydanticCustomError("not-a-date", "Give a date, such as 2026-01-31.")
    return value


Date = Annotated[date, BeforeValidator(_only_dates)]


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("time-out-of-range", "Give a time in the years 1 to 9999 in UTC.") from None


def _finite(value: datetime) -> datetime:
    if value in _STORED_AS_INFINITY:
        raise PydanticCustomError(
            "time-out-of-range", "Give a time after the first moment of year 1 and before the last one of 9999."
        )
    return value


Rfc3339 = Annotated[AwareDatetime, BeforeValidator(_only_rfc3339), AfterValidator(_in_utc)]
StoredTime = Annotated[Rfc3339, AfterValidator(_finite)]  # to be written to the log
