"""The excerpts of docs/extending.md and docs/processes.md are parts of the files that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXCERPTS = re.findall(
    r"```(?:python|sql)\n(?:#|--) (tests/toy/\S+)\n(.*?)```",
    "".join([(ROOT / "docs" / name).read_text("utf-8") for name in ("extending.md", "processes.md")]),
    re.DOTALL,
)


def lines_of(text: str) -> str:
    """The same text with each line's indentation taken off."""
    return "\n".join(line.strip() for line in text.strip().splitlines())


@pytest.mark.parametrize(("file", "excerpt"), EXCERPTS, ids=[f"{nr}-{file}" for nr, (file, _) in enumerate(EXCERPTS)])
def test_an_excerpt_is_part_of_its_file(file: str, excerpt: str) -> None:
    text = lines_of((ROOT / file).read_text("utf-8"))
    for part in re.split(r"\n(?:#|--) …\n", excerpt):
        assert lines_of(part) in text


def test_the_pages_show_a_file_of_each_kind() -> None:
    folders = {Path(file).parent.name for file, _ in EXCERPTS}
    assert folders == {
        "toy",
        "aggregates",
        "domain",
        "api",
        "projections",
        "read_models",
        "migrations",
        "gateways",
        "processes",
    }
