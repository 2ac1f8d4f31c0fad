"""`orders import FILE`: place the orders of an Online Retail CSV through the command API."""

from __future__ import annotations

import asyncio
import csv
import sys
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from cli.importer.online_retail import Invoices, NotOnlineRetail, Reject, read_invoices
from cli.importer.order_submitter import Placer, Tally
from cli.stack.descriptor import running_stack

DEFAULT_COMMAND_URL = "http://127.0.0.1:8001"
REJECTS_HEADER = ["invoice", "lines", "reason", "explanation", "raw"]
CONCURRENCY = 64  # with fewer, log and service wait for each other; with more, others wait longer for the service
INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


def import_command(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Online Retail CSV, plain or gzipped.")],
    command_url: Annotated[
        str | None, typer.Option(help="Command service. Default: the running stack's, else " + DEFAULT_COMMAND_URL)
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="CSV of the refused invoices. Default: <FILE stem>.rejects.csv here.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Requests under way at a time.")] = CONCURRENCY,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to keep trying while the service is away.")] = 30.0,
    data_dir: Annotated[Path, typer.Option(help="Data directory of the running stack.")] = Path(".orders"),
) -> None:
    """Place the orders of an Online Retail CSV through the command API.

    One invoice is one order. Refused invoices go to the rejects file with the reason. Running it again places what is
    missing and changes nothing else.

    Exit code 0: every invoice is in the log or in the rejects file. 1: the outcome of some orders is not known yet.
    2: the arguments or the file make no sense.
    """
    stack = running_stack(data_dir)
    url = _service_url(command_url or (stack and stack.command_url) or DEFAULT_COMMAND_URL)
    invoices = _read(file)
    rejects_file = rejects or Path(_stem(file) + ".rejects.csv")
    if rejects_file.resolve() == file.resolve():
        raise typer.BadParameter("the rejects would overwrite the input", param_hint="--rejects")
    # Written before the first order is placed: a file that cannot be written is better learned now, and what the
    # rules refuse is on record however this run ends.
    _write_rejects(rejects_file, invoices.rejects)

    tally = Tally()
    placer = Placer(url, concurrency, patience, tally)
    interrupted = False
    try:
        asyncio.run(_place(placer, invoices))
    except KeyboardInterrupt:
        interrupted = True
    refused = [*invoices.rejects, *tally.refused]
    if tally.refused:
        _write_rejects(rejects_file, sorted(refused, key=lambda reject: reject.lines))
    _report(tally, len(invoices.placements) - tally.settled, refused, rejects_file, interrupted=interrupted)


def _service_url(url: str) -> str:
    try:
        valid = httpx.URL(url).scheme in ("http", "https") and bool(httpx.URL(url).host)
    except httpx.InvalidURL:
        valid = False
    if not valid:
        raise typer.BadParameter(f"{url!r} is not an http(s) address", param_hint="--command-url")
    return url


def _read(file: Path) -> Invoices:
    try:
        return read_invoices(file)
    except (NotOnlineRetail, OSError) as error:
        raise typer.BadParameter(f"{file}: {error}", param_hint="FILE") from error


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".csv")


def _write_rejects(path: Path, rejects: list[Reject]) -> None:
    """All of the file or nothing of it: written beside the old one, then put in its place."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(REJECTS_HEADER)
            for reject in rejects:
                lines = " ".join(map(str, reject.lines))
                writer.writerow([reject.invoice, lines, reject.reason, reject.explanation, reject.raw])
        partial.replace(path)
    except OSError as error:
        raise typer.BadParameter(f"cannot write {path}: {error.strerror}", param_hint="--rejects") from error


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} orders/s" if speed else "", style="progress.data.speed")


async def _place(placer: Placer, invoices: Invoices) -> None:
    console = Console(stderr=True)
    columns = TextColumn("placing orders"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(invoices.placements))
        await placer.place(invoices.placements, on_settled=lambda: progress.advance(task))


def _report(tally: Tally, unsettled: int, refused: list[Reject], rejects_file: Path, *, interrupted: bool) -> None:
    """Say what happened, the stable summary last on stdout, and end with the exit code that fits."""
    if refused:
        print(f"the reasons are in {rejects_file}")
    if tally.already_there and not (tally.accepted or unsettled):
        print("nothing changed: every order was already there")
    print(f"accepted {tally.accepted}, rejected {len(refused)}, already there {tally.already_there}", flush=True)
    if not unsettled:
        return
    why = "interrupted" if interrupted else tally.trouble
    print(f"not settled: {unsettled} orders ({why}).", file=sys.stderr)
    print("Run the same command again: it places what is missing and changes nothing else.", file=sys.stderr)
    raise typer.Exit(INTERRUPTED if interrupted else 1)
