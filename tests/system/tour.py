"""The commands that a page shows in its `console` blocks, and a terminal in which they are typed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.orders_command import environment
from tests.stack.orders_up import OrdersUp
from tests.system.curl import path_with_curl

ROOT = Path(__file__).parents[2]


def steps(document: str) -> Iterator[tuple[str, str]]:
    """(command, expected output); a command begins with `$ ` and goes on while lines are indented."""
    for block in re.findall(r"```console\n(.*?)```", (ROOT / document).read_text(), re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = step.splitlines()
            end = next((n for n, line in enumerate(lines) if n and not line.startswith("  ")), len(lines))
            yield "\n".join(lines[:end]), "\n".join(lines[end:])


class Terminal:
    """Beside a stack, in a directory like that of the repository."""

    def __init__(self, up: OrdersUp, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        (directory / ".orders").symlink_to(up.data_dir)
        (directory / "tests").symlink_to(ROOT / "tests")
        (directory / "docs").symlink_to(ROOT / "docs")
        (directory / ".venv" / "bin").mkdir(parents=True)
        orders = directory / ".venv" / "bin" / "orders"
        orders.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m cli "$@"\n')
        orders.chmod(0o755)
        self._directory = directory
        self._ports = {"8001": up.command_url.rpartition(":")[2], "8002": up.query_url.rpartition(":")[2]}
        self._path = path_with_curl(directory)
        self._token = ""

    def type(self, command: str) -> str:
        """What it prints. The variable TOKEN keeps its value."""
        script = re.sub(r"localhost:(800[12])", lambda found: f"localhost:{self._ports[found[1]]}", command)
        done = subprocess.run(
            ["/bin/sh", "-c", f"{self._token}\n{script}"],
            cwd=self._directory,
            env=environment(PATH=self._path, COLUMNS="200"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if command.startswith("TOKEN="):
            self._token = command
        return (done.stdout + done.stderr).strip()


def take_the_tour(terminal: Terminal) -> None:
    """Types what the README says, as far as it changes anything."""
    for command, _ in steps("README.md"):
        if re.search("localhost:8001|orders (import|erase)", command):
            terminal.type(command)
