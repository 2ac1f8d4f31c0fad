"""Progress bars of a rebuild, a verification or a catch-up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text


@contextmanager
def progress_bars(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yields `report(what, done, total)`, which draws one bar for each `what`."""
    what = TextColumn("{task.description}")
    with Progress(what, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), _Remaining(), console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, first=done)
            bars.update(tasks[what], completed=done, total=total)

        yield report


class _Remaining(ProgressColumn):
    """The time left at the average rate. That of `rich` starts over whenever the total grows, as a log does."""

    def render(self, task: Task) -> Text:
        done, elapsed, left = task.completed - task.fields["first"], task.elapsed, task.remaining
        if left == 0:
            return Text("0:00:00", "progress.remaining")
        if not left or not elapsed or not done:
            return Text("-:--:--", "progress.remaining")
        return Text(str(timedelta(seconds=round(elapsed * left / done))), "progress.remaining")
