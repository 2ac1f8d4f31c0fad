"""The README's tour and the page on time travel are true: their commands are run, their answers compared with these."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.orders_up import OrdersUp
from tests.system.tour import ROOT, Terminal, steps

README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrdersUp]:
    stack = OrdersUp(tmp_path_factory.mktemp("readme") / ".orders")
    try:
        yield stack.until_ready()
    finally:
        stack.stop()


def _expected(output: str) -> str:
    """As a pattern: `…` is anything, white space is any white space."""
    parts = [re.sub(r"(\\\s|\s)+", r"\\s+", re.escape(part)) for part in output.strip().split("…")]
    return ".*".join(parts)


@pytest.mark.subprocess
@pytest.mark.timeout(240)  # each command is a program of its own
@pytest.mark.parametrize("document", ["README.md", "docs/time-travel.md"])
def test_the_tour(document: str, up: OrdersUp, tmp_path: Path) -> None:
    terminal, typed = Terminal(up, tmp_path), [*steps(document)]
    assert len(typed) > 5
    for command, output in typed:
        said = terminal.type(command)
        assert re.fullmatch(_expected(output), said, re.DOTALL), f"$ {command}\n{said}\n\nnot\n{output}"
    assert [path.name for path in tmp_path.iterdir() if path.is_file() and not _ignored(path)] == []


def _ignored(path: Path) -> bool:
    """Whether git ignores a file of that name at the top level; the stand-in for curl is the test's own."""
    patterns = [*(ROOT / ".gitignore").read_text().split(), "curl"]
    return any(path.match(pattern.removeprefix("/")) for pattern in patterns)


def test_every_file_the_readme_names_is_there() -> None:
    named = re.findall(r"\]\(([^)#:]+)\)", README)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
