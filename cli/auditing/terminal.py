"""An audit at a terminal: a connection, a progress bar, a printed result."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO, NamedTuple
from uuid import UUID

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from cli.auditing.database import connected
from cli.auditing.errors import CannotAudit
from cli.auditing.export import export
from cli.auditing.finding import HeadRow
from cli.auditing.log_ids import describe
from cli.auditing.seals import Seal
from cli.auditing.times import rfc3339
from cli.auditing.verification import AuditResult, verify
from cli.tables import print_json
from shared.files import replacing


class Verification(NamedTuple):
    result: AuditResult
    seconds: float

    @property
    def head(self) -> HeadRow:
        """Of an intact log."""
        assert self.result.head is not None, "an intact log has a head"
        return self.result.head


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} events/s" if speed else "", style="progress.data.speed")


async def verify_log(
    url: str, seals: Sequence[Seal], *, log_id: UUID | None = None, from_last_seal: bool = False
) -> Verification:
    """Verify with a progress bar. Raises CannotAudit."""
    console = Console()
    columns = TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()
    started = perf_counter()
    async with connected(url) as connection:
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task("", total=None)
            result = await verify(
                connection,
                seals,
                log_id=log_id,
                from_last_seal=from_last_seal,
                progress=lambda verified, total: progress.update(task, completed=verified, total=total),
            )
    return Verification(result, perf_counter() - started)


def print_verification(verification: Verification, more: Mapping[str, Any], *, as_json: bool) -> None:
    """Prints the head, or what was found, and `more` fields of an intact log. Ends the command with exit code 1 on a
    finding."""
    result, seconds = verification
    if (finding := result.finding) is not None:
        print_json({"intact": False, **asdict(finding)}) if as_json else print(finding)
        raise typer.Exit(1)
    head = verification.head
    fields = {
        "log": str(head.log_id),
        "position": head.position,
        "hash": head.hash.hex(),
        "recorded": rfc3339(head.recorded_at),
    }
    if as_json:
        ids = [describe(change) for change in result.id_changes]
        print_json({"intact": True, **fields, "new_ids": ids, "verified": result.verified, **more})
        return
    rate = f"{result.verified:,} events in {seconds:.2f} s ({result.verified / seconds:,.0f} events/s)"
    for name, value in [
        *fields.items(),
        *(("new id", describe(change)) for change in result.id_changes),
        ("verified", rate),
        *more.items(),
    ]:
        print(f"{name:10}{value}")


async def export_to(path: Path | None, url: str, first: int, last: int | None) -> None:
    """Write to the file, or to standard output. Raises CannotAudit."""
    if path is not None:
        with _whole_file(path) as file:
            async with connected(url) as connection:
                count = await export(connection, first, last, file)
        print(f"{count:,} events in {path}")
        return
    try:
        async with connected(url) as connection:
            await export(connection, first, last, sys.stdout.buffer)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe. Keep the interpreter from flushing it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that replaces `path` atomically when the block ends. Raises CannotAudit."""
    try:
        with replacing(path) as file:
            yield file
    except OSError as error:
        raise CannotAudit(f"cannot write {path}: {error.strerror}") from error
