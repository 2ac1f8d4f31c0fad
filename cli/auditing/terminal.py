"""An audit at a terminal: a connection, a progress bar, a printed result."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import BinaryIO
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


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} events/s" if speed else "", style="progress.data.speed")


async def verify_and_print(
    url: str, seals: Sequence[Seal], *, log_id: UUID | None = None, from_last_seal: bool = False
) -> HeadRow:
    """Verify with a progress bar and print the result; returns the verified head.

    Raises CannotAudit. Ends the command with exit code 1 on a finding.
    """
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
    return _print_result(result, perf_counter() - started)


def _print_result(result: AuditResult, seconds: float) -> HeadRow:
    if result.finding is not None:
        print(result.finding)
        raise typer.Exit(1)
    head = result.head
    assert head is not None, "an intact log has a head"
    print(f"log       {head.log_id}")
    print(f"position  {head.position}")
    print(f"hash      {head.hash.hex()}")
    print(f"recorded  {rfc3339(head.recorded_at)}")
    for change in result.id_changes:
        print(f"new id    {describe(change)}")
    print(f"verified  {result.verified:,} events in {seconds:.2f} s ({result.verified / seconds:,.0f} events/s)")
    return head


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
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise CannotAudit(f"cannot write {path}: {error.strerror}") from error
