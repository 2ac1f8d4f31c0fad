"""The README's tour and the page on time travel are true: their commands are run, their answers compared with these."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orders_command import environment
from tests.stack.orders_up import OrdersUp
from tests.system.curl import path_with_curl

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrdersUp]:
    stack = OrdersUp(tmp_path_factory.mktemp("readme") / ".orders")
    try:
        yield stack.until_ready()
    finally:
        stack.stop()


def _blocks(document: str) -> list[str]:
    return re.findall(r"```console\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def _steps(block: str) -> Iterator[tuple[str, str]]:
    """(command, expected output); a command begins with `$ ` and goes on while lines are indented."""
    for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = step.splitlines()
        end = next((n for n, line in enumerate(lines) if n and not line.startswith("  ")), len(lines))
        yield "\n".join(lines[:end]), "\n".join(lines[end:])


def _expected(output: str) -> str:
    """As a pattern: `…` is anything, white space is any white space."""
    parts = [re.sub(r"(\\\s|\s)+", r"\\s+", re.escape(part)) for part in output.strip().split("…")]
    return ".*".join(parts)


@pytest.mark.subprocess
@pytest.mark.parametrize("document", ["README.md", "docs/time-travel.md"])
def test_the_tour(document: str, up: OrdersUp, tmp_path: Path) -> None:
    (tmp_path / ".orders").symlink_to(up.data_dir)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    orders = tmp_path / ".venv" / "bin" / "orders"
    orders.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m cli "$@"\n')
    orders.chmod(0o755)
    command_port, query_port = (url.rpartition(":")[2] for url in (up.command_url, up.query_url))
    path = path_with_curl(tmp_path)
    blocks = _blocks(document)
    assert len(blocks) > 5
    token = ""
    for block in blocks:
        for command, output in _steps(block):
            script = command.replace("localhost:8001", f"localhost:{command_port}")
            script = script.replace("localhost:8002", f"localhost:{query_port}")
            done = subprocess.run(
                ["/bin/sh", "-c", f"{token}\n{script}"],
                cwd=tmp_path,
                env=environment(PATH=path, COLUMNS="200"),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            if command.startswith("TOKEN="):
                token = command
            said = (done.stdout + done.stderr).strip()
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
