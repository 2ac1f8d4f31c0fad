"""The page that explains every error code, to which `type` leads, made from the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any, NamedTuple

from shared.http import refusals
from shared.http.problems import FRAMEWORK, MEDIA_TYPE, title_of
from shared.http.refusals import Refusal

_STANDARD = {"type", "title", "status", "detail", "instance", "code"}
_ANYWHERE = {404: "The address is none of this service.", 405: "`Allow` lists the methods that the address offers."}


class ErrorCode(NamedTuple):
    code: str
    status: int
    title: str
    when: list[str]
    members: list[str]  # beside the standard ones
    operations: list[str]  # empty: any request


def error_codes(documents: Iterable[dict[str, Any]]) -> list[ErrorCode]:
    """Those of the operations of all documents, and those of any request, by code."""
    found: dict[str, ErrorCode] = {}
    for code, status, title, when, members, operation in [*_of_any_request(), *_of_operations(documents)]:
        entry = found.setdefault(code, ErrorCode(code, status, title, [], members, []))
        for into, one in ((entry.when, when), (entry.operations, operation)):
            if one and one not in into:
                into.append(one)
    return sorted(found.values())


_Found = tuple[str, int, str, str, list[str], str]


def _of_operations(documents: Iterable[dict[str, Any]]) -> Iterator[_Found]:
    for document in documents:
        for path, item in document["paths"].items():
            for method, operation in item.items():
                for answer in operation["responses"].values():
                    name = answer.get("$ref", "").rpartition("/")[2]
                    told = document["components"]["responses"][name] if name else answer
                    yield from _of_answer(told, f"{method.upper()} {path}")


def _of_answer(answer: dict[str, Any], operation: str) -> Iterator[_Found]:
    when = dict(re.findall(r"^`([a-z-]+)`: (.+)$", answer["description"], re.MULTILINE))
    for code, example in answer.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {}).items():
        value = example["value"]
        members = [name for name in value if name not in _STANDARD]
        yield code, value["status"], value["title"], when[code], members, operation


def _of_any_request() -> Iterator[_Found]:
    for status, when in _ANYWHERE.items():
        code, title = FRAMEWORK[status]
        yield code, status, title, when, [], ""
    for one in vars(refusals).values():
        if isinstance(one, Refusal):
            yield one.code, one.status, title_of(one.status, one.code), one.detail, [*one.data], ""


def as_markdown(codes: Iterable[ErrorCode]) -> str:
    return "\n".join(_section(one) for one in codes)


def _section(one: ErrorCode) -> str:
    lines = [f"## {one.code}", "", f"{one.status}. {one.title}.", "", *(f"- {when}" for when in one.when)]
    if one.members:
        lines += ["", f"Members: {', '.join(f'`{name}`' for name in one.members)}."]
    lines += ["", f"Answered by {', '.join(f'`{name}`' for name in one.operations) or 'any request'}.", ""]
    return "\n".join(lines)


def as_html(title: str, codes: Iterable[ErrorCode]) -> str:
    sections = "\n".join(
        f'<h2 id="{one.code}">{one.code}</h2>\n<p>{one.status}. {escape(one.title)}.</p>\n'
        f"<ul>{''.join(f'<li>{escape(when)}</li>' for when in one.when)}</ul>\n"
        f"<p>{escape(', '.join(one.operations) or 'any request')}</p>"
        for one in codes
    )
    name = f"{escape(title)}: errors"
    head = f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{name}</title></head>\n'
    return f"{head}<body>\n<h1>{name}</h1>\n{sections}\n</body>\n</html>\n"
