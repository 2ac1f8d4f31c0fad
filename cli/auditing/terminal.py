"""An audit as a person runs it: a connection, a progress bar, a verdict in words."""

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
from cli.auditing.log_ids import in_words
from cli.auditing.seals import Seal
from cli.auditing.times import rfc3339
from cli.auditing.verification import Verdict, verify


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} events/s" if speed else "", style="progress.data.speed")


async def check(
    url: str, seals: Sequence[Seal], *, log_id: UUID | None = None, from_last_seal: bool = False
) -> Verdict:
    """Verify with a progress bar on a terminal; print the verdict. Raises CannotAudit; ends with 1 on a finding."""
    console = Console()
    columns = TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()
    started = perf_counter()
    async with connected(url) as connection:
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task("", total=None)
            verdict = await verify(
                connection,
                seals,
                log_id=log_id,
                from_last_seal=from_last_seal,
                progress=lambda walked, total: progress.update(task, completed=walked, total=total),
            )
    _report(verdict, perf_counter() - started)
    return verdict


def _report(verdict: Verdict, seconds: float) -> None:
    if verdict.finding is not None:
        print(verdict.finding)
        raise typer.Exit(1)
    head = verdict.head
    assert head is not None, "an intact log has a head"
    print(f"log       {head.log_id}")
    print(f"position  {head.position}")
    print(f"hash      {head.hash.hex()}")
    print(f"recorded  {rfc3339(head.recorded_at)}")
    for renewal in verdict.renewals:
        print(f"new id    {in_words(renewal)}")
    print(f"verified  {verdict.walked:,} events in {seconds:.2f} s ({verdict.walked / seconds:,.0f} events/s)")


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
        # Whoever read it has enough. Keep the interpreter from flushing once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """All of the file or nothing of it: written beside the old one, then put in its place."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise CannotAudit(f"cannot write {path}: {error.strerror}") from error
