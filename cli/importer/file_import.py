"""The import of one file, from reading it to the summary."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from cli.bearer_token import BearerToken
from cli.failure import INTERRUPTED, BadArgument
from cli.importer.online_retail import Invoices, Reject, read_invoices
from cli.importer.order_submitter import OrderSubmitter
from cli.importer.rejects import write_rejects
from cli.importer.return_submitter import CustomerCredits, ReturnSubmitter
from cli.importer.rows import DateOrder
from cli.importer.submitter import ImportSummary, Submitter
from cli.importer.text_file import NotReadable

T = TypeVar("T")

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
    returns: bool,
    concurrency: int,
    patience: float,
) -> None:
    """Submit the orders of the file, then with `returns` its credit notes; write the rejects, print the summary. Ends
    the process with 1 or 130 where an outcome is not known. Raises BadArgument."""
    _check_url("--command-url", services.command_url)
    _check_url("--query-url", services.query_url)
    invoices = _read(file, date_order, returns=returns)
    rejects_file = rejects_file or Path(_PACKED_OR_TEXT.sub("", file.name) + ".rejects.csv")
    if rejects_file.resolve() == file.resolve():
        raise BadArgument("the file of --rejects would overwrite the input")
    # Written before the first request: a file that cannot be written ends the command in time, and the invoices that
    # the rules refuse are recorded even when the import is interrupted.
    write_rejects(rejects_file, invoices.rejects)

    summary = ImportSummary()
    orders_of_file = OrderSubmitter(*services, token, concurrency, patience, summary)
    returns_of_file = ReturnSubmitter(*services, token, concurrency, patience, summary)
    interrupted = False
    try:
        asyncio.run(_submit(orders_of_file, returns_of_file, invoices, summary))
    except KeyboardInterrupt:
        interrupted = True
    refused = [*invoices.rejects, *summary.refused, *summary.unmatched]
    if len(refused) > len(invoices.rejects):
        write_rejects(rejects_file, sorted(refused, key=lambda reject: reject.lines))
    orders = len(invoices.placements) - summary.settled
    notes = len(invoices.credit_notes) - summary.credit_notes
    if returns:
        print(f"credit notes booked {summary.returned}, booked before {summary.returned_before}")
    _print_summary(summary, orders + notes, refused, rejects_file)
    if orders + notes:
        why = "interrupted" if interrupted else summary.last_error
        what = f"{orders} orders, {notes} credit notes" if returns else f"{orders} orders"
        print(f"not settled: {what} ({why}).", file=sys.stderr)
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


def _read(file: Path, date_order: DateOrder | None, *, returns: bool) -> Invoices:
    try:
        return read_invoices(file, date_order, returns=returns)
    except (NotReadable, OSError) as error:
        raise BadArgument(f"{file}: {error}") from error


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {self._unit}/s" if speed else "", style="progress.data.speed")


async def _submit(orders: OrderSubmitter, returns: ReturnSubmitter, invoices: Invoices, summary: ImportSummary) -> None:
    """Credit notes only once every order is there that they may take back."""
    await _submit_all(orders, "placing", "orders", invoices.placements)
    if summary.settled == len(invoices.placements) and invoices.credit_notes:
        returns.consistency_token = orders.consistency_token
        await _submit_all(returns, "booking returns of", "customers", CustomerCredits.of(invoices.credit_notes))


async def _submit_all(submitter: Submitter[T], doing: str, unit: str, items: Sequence[T]) -> None:
    console = Console(stderr=True)
    columns = TextColumn(f"{doing} {unit}"), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(items))
        await submitter.submit(items, on_settled=lambda: progress.advance(task))


def _print_summary(summary: ImportSummary, unsettled: int, refused: list[Reject], rejects_file: Path) -> None:
    """The last line has a fixed form, for programs."""
    if refused:
        print(f"the reasons are in {rejects_file}")
    if summary.already_there and not (summary.accepted or summary.returned or unsettled):
        print("nothing changed: every order was already there")
    print(f"accepted {summary.accepted}, rejected {len(refused)}, already there {summary.already_there}", flush=True)
