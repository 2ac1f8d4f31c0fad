"""Every page names its readers in its first line, and a long one has a complete table of contents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).parents[1] / "docs"
PAGES = [
    DIRECTORY / name
    for name in (
        "architecture.md",
        "audit.md",
        "clients.md",
        "data-protection.md",
        "operations.md",
        "performance.md",
        "processes.md",
        "scaling.md",
        "security.md",
        "time-travel.md",
    )
]
TWO_SCREENS = 100  # lines


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return "#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_who_reads_it(page: Path) -> None:
    assert page.read_text().splitlines()[2].startswith("For ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_table_of_contents_of_a_long_page_names_every_section(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    sections = [(heading, anchor(heading)) for heading in re.findall(r"^## (.+)$", text, re.MULTILINE)]
    contents = re.findall(r"^- \[(.+?)\]\((#.+?)\)", text.partition("\n## ")[0], re.MULTILINE)
    assert contents == sections or (not contents and len(text.splitlines()) <= TWO_SCREENS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, _, section in re.findall(r"\]\((?!http)([^)#]*)(#?)([^)]*)\)", page.read_text()):
        file = (page.parent / target) if target else page
        assert file.exists(), target
        if section:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert f"#{section}" in map(anchor, headings), section
