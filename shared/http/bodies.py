"""Reads JSON bodies, so that an invalid one costs no more than a valid one.

Pydantic lists every error: a body of 512 KiB can have 65,000 unknown fields, whose errors take a fifth of a second and
100 MB. So the fields of an object are counted before, a list ends at its first wrong element, and the elements after
that are read only until there are enough errors.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

MAX_ERRORS = 20  # that an answer lists
MAX_FIELDS = 64  # of one object
MAX_VALUES = 20_000  # of a body; an order of 2,000 lines has 10,006
_FEW_COMMAS = 256  # of a body with few fields and elements: errors of all of them are cheap

Errors = list[dict[str, Any]]  # as Pydantic has them, located in the body

_NO_BODY = {"type": "missing", "loc": ("body",)}
_TOO_MANY_FIELDS = {
    "type": "too-many-fields",
    "loc": ("body",),
    "msg": f"An object has more than {MAX_FIELDS} fields.",
    "ctx": {"maximum": MAX_FIELDS},
}
_TOO_MANY_VALUES = {
    "type": "too-many-values",
    "loc": ("body",),
    "msg": f"There are more than {MAX_VALUES} values.",
    "ctx": {"maximum": MAX_VALUES},
}

_CONTAINERS = {dict, list}

M = TypeVar("M", bound=BaseModel)


class InvalidBody(Exception):
    """`errors` are the first ones."""

    def __init__(self, errors: Errors) -> None:
        super().__init__(f"{len(errors)} errors")
        self.errors = errors


def read_body(model: type[M], content: bytes) -> M:
    """The body; lists of the model are `FailFast`. Raises `InvalidBody`."""
    document = None
    try:
        if content.count(b",") <= _FEW_COMMAS:
            return model.model_validate_json(content)
        document = _parse(model, content)
        _check_counts(document)
        return model.model_validate(document)
    except ValidationError as error:
        if not content:
            raise InvalidBody([_NO_BODY]) from None
        found = _located(error)
    if any(map(_is_in_list, found)):
        found = _with_later_elements(model, from_json(content) if document is None else document, found)
    raise InvalidBody(found[:MAX_ERRORS])


def _parse(model: type[BaseModel], content: bytes) -> Any:
    """The JSON document. Raises Pydantic's `ValidationError` where it is none."""
    try:
        return from_json(content)
    except ValueError:
        return model.model_validate_json(content)  # fails as well, and says where


def _check_counts(document: Any) -> None:
    """Raises `InvalidBody` for a document with too many fields or values."""
    count, containers = 0, [document]
    for container in containers:  # which grows meanwhile
        if type(container) is dict and len(container) > MAX_FIELDS:
            raise InvalidBody([_TOO_MANY_FIELDS])
        count += len(container)
        if count > MAX_VALUES:
            raise InvalidBody([_TOO_MANY_VALUES])
        values = container.values() if type(container) is dict else container
        if not _CONTAINERS.isdisjoint(map(type, values)):
            containers += [value for value in values if type(value) in _CONTAINERS]


def _located(error: ValidationError) -> Errors:
    found = error.errors(include_url=False, include_input=False)
    return [{**one, "loc": ("body", *one["loc"])} for one in found]


def _with_later_elements(model: type[BaseModel], document: dict[str, Any], found: Errors) -> Errors:
    """The errors, and those of elements after the first wrong one of each list, until there are enough."""
    for field, wrong in {one["loc"][1]: one["loc"][2] for one in found if _is_in_list(one)}.items():
        elements, read = document[field], wrong + 1
        while len(found) < MAX_ERRORS and read < len(elements):
            later = _errors(model, {**document, field: elements[read:]}, field)
            if not later:
                break
            for one in later:
                _, _, number, *rest = one["loc"]
                found.append({**one, "loc": ("body", field, read + number, *rest)})
            read += later[0]["loc"][2] + 1
    return found


def _errors(model: type[BaseModel], document: dict[str, Any], field: str) -> Errors:
    """Those of elements of this field."""
    try:
        model.model_validate(document)
    except ValidationError as error:
        return [one for one in _located(error) if one["loc"][1] == field and _is_in_list(one)]
    return []


def _is_in_list(error: dict[str, Any]) -> bool:
    return len(error["loc"]) > 2 and type(error["loc"][2]) is int
