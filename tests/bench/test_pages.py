"""The pages say what the last run's file says, the rows are those of the table, and the comparison is a fair one."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from bench import pages
from bench.__main__ import ROWS, measures
from bench.bare_route import PlaceOrder
from bench.runner import LATEST, load

ROOT = Path(__file__).parents[2]
WORDS = {"title", "description", "examples", "example", "default"}


@pytest.mark.parametrize("page", [pages.PERFORMANCE, pages.SCALING], ids=["performance", "scaling"])
def test_a_page_says_what_the_last_run_says(page: Path) -> None:
    text = page.read_text()
    for name, part in pages.parts_of(load(LATEST))[page].items():
        assert pages.replace_part(text, name, part) == text, "write it with `python -m bench.pages`"


def test_the_page_has_at_most_1500_words() -> None:
    words = re.findall(r"\S*\w\S*", re.sub(r"<!--.*?-->", "", pages.PERFORMANCE.read_text()))
    assert len(words) <= 1_500


def test_every_picture_is_there() -> None:
    pictures = re.findall(r"\((images/[\w-]+\.svg)\)", pages.PERFORMANCE.read_text())
    assert len(pictures) == 3
    assert [picture for picture in pictures if not (ROOT / "docs" / picture).exists()] == []


def test_there_is_a_module_for_every_row() -> None:
    assert sorted(ROWS) == list(range(1, 17))
    assert set(measures(list(ROWS.values()))) == set(ROWS.values())
    assert all(f"Row {row}:" in str(import_module(f"bench.{name}").__doc__) for row, name in ROWS.items())


def test_the_bare_route_checks_the_body_as_the_service_does() -> None:
    document = json.loads((ROOT / "docs" / "openapi" / "command.json").read_text())
    schemas = document["components"]["schemas"]
    assert rules(PlaceOrder.model_json_schema()) == rules({**schemas["PlaceOrderBody"], "$defs": schemas})


def rules(schema: dict[str, Any]) -> Any:
    """A schema without its words, references resolved."""

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolve(schema["$defs"][node["$ref"].rpartition("/")[2]])
        return {key: resolve(value) for key, value in node.items() if key not in WORDS and key != "$defs"}

    return resolve(schema)
