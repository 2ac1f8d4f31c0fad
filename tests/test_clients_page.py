"""docs/clients.md lists every code of a form error, with its parameters."""

from __future__ import annotations

import re
from pathlib import Path

from command_service.api import ROUTERS
from shared.http import form_errors

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "clients.md"
_RAISED = re.compile(r"""(?:PydanticCustomError\(\s*|FormError\(\s*f?"[^"]+",\s*)"([a-z-]+)\"""")


def test_every_code_of_a_form_error_is_listed_with_its_parameters() -> None:
    listed = _listed()
    assert ROUTERS, "their modules register formats"
    for text in (*form_errors._OF_PYDANTIC.values(), *form_errors._FORMATS.values(), form_errors._OTHER):
        assert {*text.params} <= listed[text.code], text.code
    packages = ("shared", "command_service", "query_service")
    sources = [path.read_text("utf-8") for package in packages for path in (ROOT / package).rglob("*.py")]
    raised = {code for source in sources for code in _RAISED.findall(source)}
    assert raised
    assert raised - listed.keys() == set()


def form_error_codes() -> set[str]:
    """Those that the page lists."""
    return {*_listed()}


def _listed() -> dict[str, set[str]]:
    """Parameters by code."""
    head = "| `code` of a form error | `params` |\n|---|---|\n"
    table = PAGE.read_text("utf-8").partition(head)[2].partition("\n\n")[0]
    rows = [row.strip("|").split("|") for row in table.splitlines()]
    return {
        code: {*re.findall("`([a-z]+)`", params)} for codes, params in rows for code in re.findall("`([a-z-]+)`", codes)
    }
