from __future__ import annotations

import asyncio
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.orders_command import invoke_orders
from tests.roles import url_of


@dataclass(frozen=True)
class Replay:
    """Runs `orders replay` to its end, from `directory`, as an auditor."""

    directory: Path
    database_url: str

    async def __call__(self, *arguments: str, **added: str) -> subprocess.CompletedProcess[str]:
        settings = {"DATABASE_URL": url_of(self.database_url, "orders_auditor"), **added}
        return await asyncio.to_thread(invoke_orders, "replay", *arguments, cwd=self.directory, env=settings)

    async def refused(self, code: int, *arguments: str, **added: str) -> str:
        """Its standard error, having ended with this code and printed nothing else."""
        ended = await self(*arguments, **added)
        assert (ended.returncode, ended.stdout) == (code, ""), ended
        assert ended.stderr.startswith("orders: ")
        return ended.stderr

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)


@pytest.fixture
def replay(database_url: str, tmp_path: Path) -> Replay:
    assert "AUDITOR_DATABASE_URL" not in os.environ
    return Replay(tmp_path, database_url)
