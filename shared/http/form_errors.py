"""What is wrong with one value of a request, as a form shows it: a pointer, a stable code, its parameters, a sentence.

Pydantic's own types and texts stay inside: they change with its releases and show regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec


class FormError(msgspec.Struct, frozen=True):
    """`pointer` is a JSON Pointer into the body (`#/items/0/quantity`), or `query/limit`, `path/id`."""

    pointer: str
    code: str
    detail: str
    params: dict[str, Any] = {}


class _Text(NamedTuple):
    code: str
    detail: str  # names parameters in braces
    params: Mapping[str, str] = {}  # name here -> name in Pydantic
    detail_of_one: str | None = None  # where the parameter is 1


_NUMBER = _Text("not-an-integer", "Give a whole number.")
_OBJECT = _Text("not-an-object", "Give a JSON object.")
_OF_PYDANTIC = {
    "missing": _Text("required", "This is required."),
    "extra_forbidden": _Text("unknown-field", "There is no such field."),
    "string_type": _Text("not-a-string", "Give a text."),
    "int_type": _NUMBER,
    "int_parsing": _NUMBER,
    "int_from_float": _NUMBER,
    "int_parsing_size": _Text("too-large", "This number is too large."),
    "bool_type": _Text("not-a-boolean", "Give true or false."),
    "bool_parsing": _Text("not-a-boolean", "Give true or false."),
    "list_type": _Text("not-a-list", "Give a list."),
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "string_too_short": _Text(
        "too-short", "Give at least {minimum} characters.", {"minimum": "min_length"}, "Give at least 1 character."
    ),
    "string_too_long": _Text(
        "too-long", "Give at most {maximum} characters.", {"maximum": "max_length"}, "Give at most 1 character."
    ),
    "too_short": _Text("too-few", "Give at least {minimum}.", {"minimum": "min_length"}),
    "too_long": _Text("too-many", "Give at most {maximum}.", {"maximum": "max_length"}),
    "greater_than_equal": _Text("too-small", "Give at least {minimum}.", {"minimum": "ge"}),
    "less_than_equal": _Text("too-large", "Give at most {maximum}.", {"maximum": "le"}),
}
_OF_PYDANTIC |= dict.fromkeys(
    ("datetime_parsing", "datetime_from_date_parsing", "datetime_type", "timezone_aware"),
    _Text("not-a-time", "Give an RFC 3339 time with an offset, such as 2026-01-31T14:30:00Z."),
)
_OF_PYDANTIC |= dict.fromkeys(
    ("date_parsing", "date_from_datetime_parsing", "date_type"), _Text("not-a-date", "Give a date, such as 2026-01-31.")
)
_OTHER = _Text("invalid", "This value is not acceptable.")
_FORMATS: dict[str, _Text] = {}  # by pattern


def format_of(pattern: str, code: str, detail: str) -> str:
    """Registers what is said of a text that does not match the pattern, which it returns."""
    _FORMATS[pattern] = _Text(code, detail)
    return pattern


def form_error(error: Mapping[str, Any]) -> FormError:
    """Of one of Pydantic's errors. Of a `PydanticCustomError`, the type is the code."""
    kind, context = error["type"], error.get("ctx", {})
    pointer = _pointer(error["loc"])
    if "-" in kind:
        return FormError(pointer, kind, error["msg"], dict(context))
    if kind == "enum":
        allowed = context["expected"]
        return FormError(pointer, "not-allowed", f"Give {allowed}.", {"allowed": _listed(allowed)})
    if kind == "string_pattern_mismatch":
        text = _FORMATS.get(context["pattern"], _OTHER)
    else:
        text = _OF_PYDANTIC.get(kind, _OTHER)
    params = {name: context[theirs] for name, theirs in text.params.items()}
    detail = text.detail_of_one if text.detail_of_one and 1 in params.values() else text.detail
    return FormError(pointer, text.code, detail.format(**params), params)


def _listed(expected: str) -> list[str]:
    """The values in a text such as `'A', 'B' or 'C'`."""
    return re.findall("'([^']*)'", expected)


def _pointer(loc: Sequence[str | int]) -> str:
    place, *rest = loc
    steps = [str(step).replace("~", "~0").replace("/", "~1") for step in rest]
    return "/".join(["#" if place == "body" else str(place), *steps])
