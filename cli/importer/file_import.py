"""The import of one file, from reading it to the summary."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import NamedTuple

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from cli.bearer_token import BearerToken
from cli.failure import INTERRUPTED, BadArgument
from cli.importer.online_retail import Invoices, Reject, read_invoices
from cli.importer.order_submitter import ImportSummary, OrderSubmitter
from cli.importer.rejects import write_rejects
from cli.importer.rows import DateOrder
from cli.importer.text_file import NotReadable

_PACKED_OR_TEXT = re.compile(r"(\.(csv|txt|tsv))?(\.(gz|zip))?$", re.IGNORECASE)


class Services(NamedTuple):
    """Addresses of the command service, which places orders, and of the query service, which knows what is there."""

    command_url: str
    query_url: str


def import_file(
    file: Path,
    services: Services,
    token: BearerToken,
    rejects_file: Path | None,
    *,
    date_order: DateOrder | None,
    concurrency: int,
    patience: float,
) -> None:
    """Submit the orders of the file; write the rejects, print the summary. Ends the process with 1 or 130 where the
    outcome of an order is not known. Raises BadArgument."""
    _check_url("--command-url", services.command_url)
    _check_url("--query-url", services.query_url)
    invoices = _read(file, date_order)
    rejects_file = rejects_file or Path(_PACKED_OR_TEXT.sub("", file.name) + ".rejects.csv")
    if rejects_file.resolve() == file.resolve():
        raise BadArgument("the file of --rejects would overwrite the input")
    # Written before the first request: a file that cannot be written ends the command in time, and the invoices that
    # the rules refuse are recorded even when the import is interrupted.
    write_rejects(rejects_file, invoices.rejects)

    summary = ImportSummary()
    submitter = OrderSubmitter(*services, token, concurrency, patience, summary)
    interrupted = False
    try:
        asyncio.run(_submit(submitter, invoices))
    except KeyboardInterrupt:
        interrupted = True
    refused = [*invoices.rejects, *summary.refused]
    if summary.refused:
        write_rejects(rejects_file, sorted(refused, key=lambda reject: reject.lines))
    unsettled = len(invoices.placements) - summary.settled
    _print_summary(summary, unsettled, refused, rejects_file)
    if unsettled:
        why = "interrupted" if interrupted else summary.last_error
        print(f"not settled: {unsettled} orders ({why}).", file=sys.stderr)
        if summary.advice:
            print(summary.advice, file=sys.stderr)
        print("Run the same command again: it places what is missing and changes nothing else.", file=sys.stderr)
        sys.exit(INTERRUPTED if interrupted else 1)


def _check_url(option: str, url: str) -> None:
    try:
        valid = httpx.URL(url).scheme in ("http", "https") and bool(httpx.URL(url).host)
    except httpx.InvalidURL:
        valid = False
    if not valid:
        raise BadArgument(f"{option}: {url!r} is not an http(s) address")


def _read(file: Path, date_order: DateOrder | None) -> Invoices:
    try:
        return read_invoices(file, date_order)
    except (NotReadable, OSError) as error:
        raise BadArgument(f"{file}: {error}") from error


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} orders/s" if speed else "", style="progress.data.speed")


async def _submit(submitter: OrderSubmitter, invoices: Invoices) -> None:
    console = Console(stderr=True)
    columns = TextColumn("placing orders"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(invoices.placements))
        await submitter.submit(invoices.placements, on_settled=lambda: progress.advance(task))


def _print_summary(summary: ImportSummary, unsettled: int, refused: list[Reject], rejects_file: Path) -> None:
    """The last line has a fixed form, for programs."""
    if refused:
        print(f"the reasons are in {rejects_file}")
    if summary.already_there and not (summary.accepted or unsettled):
        print("nothing changed: every order was already there")
    print(f"accepted {summary.accepted}, rejected {len(refused)}, already there {summary.already_there}", flush=True)
