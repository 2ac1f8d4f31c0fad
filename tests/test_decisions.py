"""docs/decisions/README.md lists every decision under its title."""

from __future__ import annotations

import re
from pathlib import Path

DIRECTORY = Path(__file__).parents[1] / "docs" / "decisions"
RECORDS = sorted(DIRECTORY.glob("[0-9]*.md"))


def number_and_title(record: Path) -> tuple[int, str]:
    """From the first line, `# <number>. <title>`."""
    heading = re.fullmatch(r"# (\d+)\. (.+)", record.read_text().partition("\n")[0])
    assert heading is not None, record.name
    return int(heading[1]), heading[2]


def test_the_index_lists_every_decision() -> None:
    index = "\n".join("- [{}. {}]({})".format(*number_and_title(record), record.name) for record in RECORDS)
    assert f"\n{index}\n" in (DIRECTORY / "README.md").read_text(), f"docs/decisions/README.md should hold:\n{index}"


def test_a_decision_has_the_number_of_its_file_and_no_other_has_it() -> None:
    numbers = [number_and_title(record)[0] for record in RECORDS]
    assert numbers == [int(record.name[:4]) for record in RECORDS]
    assert len(set(numbers)) == len(numbers)


def test_the_links_between_decisions_lead_somewhere() -> None:
    links = {
        (record.name, link) for record in RECORDS for link in re.findall(r"\]\((?!http)([^)#]+)", record.read_text())
    }
    assert [(name, link) for name, link in sorted(links) if not (DIRECTORY / link).exists()] == []
