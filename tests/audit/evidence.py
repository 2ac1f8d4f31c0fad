"""A log to tamper with, and both verifiers, as an auditor runs them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypeAlias
from uuid import UUID

import asyncpg
from typer.testing import CliRunner

from cli.main import app
from shared.eventstore.append_request import AppendRequest, NewEvent
from shared.eventstore.log import append_group

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

TOOL = Path(__file__).parents[2] / "tools" / "verify_log.py"
BUSINESS_TIME = datetime(2026, 3, 1, 9, 30, 0, 123456, tzinfo=UTC)
_VERDICT = re.compile(r"^position (-?\d+): ([a-z_ ]+): .")


class Answer(NamedTuple):
    """What a program printed, and its exit code."""

    exit_code: int
    output: str

    @property
    def finding(self) -> tuple[int, str] | None:
        """(first bad position, what is wrong there); None when the log was found intact."""
        if self.exit_code == 0:
            return None
        found = _VERDICT.match(self.output)
        assert found is not None, self.output
        assert self.exit_code == 1, self.output
        return int(found[1]), found[2]


def audit(*arguments: object, **environment: str) -> Answer:
    """`orders audit ...`."""
    result = CliRunner().invoke(app, ["audit", *map(str, arguments)], env={"COLUMNS": "200", **environment})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Answer(result.exit_code, result.output)


def verify_log(*arguments: object) -> Answer:
    """`python tools/verify_log.py ...`, isolated from the project's code."""
    command = [sys.executable, "-I", str(TOOL), *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert "Traceback" not in result.stdout, result.stdout
    return Answer(result.returncode, result.stdout)


@dataclass(frozen=True)
class Log:
    """A database of its own, and what an auditor keeps elsewhere."""

    url: str
    directory: Path
    seals: Path
    public_key: Path
    private_key: Path

    def change(self, tamper: Callable[[Connection], Awaitable[object]]) -> None:
        """as superuser, with the triggers disabled."""

        async def as_superuser() -> None:
            connection = await asyncpg.connect(self.url)
            try:
                await connection.execute("alter table events disable trigger all")
                await tamper(connection)
            finally:
                await connection.close()

        asyncio.run(as_superuser())

    def execute(self, *statements: str) -> None:
        async def tamper(connection: Connection) -> None:
            for statement in statements:
                await connection.execute(statement)

        self.change(tamper)

    def exported(self) -> tuple[Path, Path]:
        """(CSV of events, CSV of log_head), as `tools/verify_log.py` wants them; the CSV of log_ids is `ids`."""
        files = self.directory / "events.csv", self.directory / "head.csv", self.ids

        async def export() -> None:
            connection = await asyncpg.connect(self.url)
            queries = (
                "select * from events order by position",
                "select * from log_head",
                "select * from log_ids order by number",
            )
            try:
                for query, file in zip(queries, files, strict=True):
                    await connection.copy_from_query(query, output=file, format="csv", header=True)
            finally:
                await connection.close()

        asyncio.run(export())
        return files[:2]

    @property
    def ids(self) -> Path:
        return self.directory / "ids.csv"

    @property
    def seal_options(self) -> tuple[object, ...]:
        return "--seals", self.seals, "--public-key", self.public_key

    def findings(self, *options: object) -> list[tuple[int, str] | None]:
        """Of both verifiers."""
        events, head = self.exported()
        return [
            audit("verify", "--database-url", self.url, *options).finding,
            verify_log(events, "--head", head, "--ids", self.ids, *options).finding,
        ]


async def append_orders(connection: Connection, first: int, count: int) -> None:
    """`count` orders of three events each; two orders a group, so that some events share their time of recording."""
    for number in range(first, first + count, 2):
        await append_group(connection, [_order(number), _order(number + 1)])


def _order(number: int) -> AppendRequest:
    events = [
        NewEvent(
            UUID(int=number * 10 + nr),
            event_type,
            1,
            f'{{"order_id": "{number}", "product_name": "Café \U0001f375, \\"large\\"\\n", "quantity": {nr}}}',
            f'{{ "actor":"shop",\r\n "correlation_id":"{number}"}}',
            BUSINESS_TIME + timedelta(seconds=number),
        )
        for nr, event_type in enumerate(["OrderPlaced", "OrderItemAdded", "OrderItemAdded"], start=1)
    ]
    return AppendRequest.of_stream(f"order-{number}", 0, UUID(int=number), events)
