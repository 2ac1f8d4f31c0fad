"""`orders processes`: which processes run, what is done about those that are stuck, and the journey of an order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

import typer

from cli.options import DataDir, Json, TokenFile

processes = typer.Typer(help="Processes, such as the fulfilment of orders.", no_args_is_help=True)

State: TypeAlias = Literal["running", "stuck", "ended"]
ProcessId = Annotated[str, typer.Argument(metavar="PROCESS_ID", help="Such as fulfilment-536365.")]
QueryUrl = Annotated[
    str | None, typer.Option(help="Query service. Default: QUERY_URL, else the running stack's.", metavar="URL")
]
CommandUrl = Annotated[
    str | None, typer.Option(help="Command service. Default: COMMAND_URL, else the running stack's.", metavar="URL")
]


@processes.command("list")
def list_(
    kind: Annotated[str | None, typer.Option(help="Such as fulfilment.")] = None,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    started_before: Annotated[str | None, typer.Option(metavar="TIME", help="Only older ones; RFC 3339.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    query_url: QueryUrl = None,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """List processes, newest first: their state, and what they wait for."""
    from cli.process_admin.services import queries
    from cli.process_admin.tables import show_list

    chosen = {"kind": kind, "state": state, "started_before": started_before, "limit": limit}
    show_list(queries(query_url, token_file, data_dir), chosen, as_json=json)


@processes.command()
def show(
    process_id: ProcessId,
    query_url: QueryUrl = None,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """Show one process: its state, what it waits for and until when, and its events."""
    from cli.process_admin.services import queries
    from cli.process_admin.tables import show_one

    show_one(queries(query_url, token_file, data_dir), process_id, as_json=json)


@processes.command()
def retry(
    process_id: ProcessId,
    command_url: CommandUrl = None,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """Let a stuck process take in what it missed, and ask anew for what was declined."""
    _intervene(process_id, "retry", {}, command_url, token_file, data_dir, json=json)


@processes.command()
def skip(
    process_id: ProcessId,
    outcome: Annotated[str | None, typer.Option(help="That the step has, such as Refunded.")] = None,
    outcome_data: Annotated[str, typer.Option("--data", metavar="JSON", help="Of the outcome.")] = "{}",
    effect_id: Annotated[str | None, typer.Option(help="Where it waits for several answers.")] = None,
    timer: Annotated[str | None, typer.Option(help="Instead of --outcome: do not wait for this timer.")] = None,
    command_url: CommandUrl = None,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """Answer the step that a process is stuck on in place of its gateway, which is not called.

    Ask the provider first what it did under the effect's id.
    """
    from cli.process_admin.services import parse_data

    given = {"outcome": outcome, "effect_id": effect_id, "timer": timer}
    body: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if timer is None:
        body["data"] = parse_data(outcome_data)
    _intervene(process_id, "skip", body, command_url, token_file, data_dir, json=json)


@processes.command()
def compensate(
    process_id: ProcessId,
    command_url: CommandUrl = None,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """Have a process give back what it took, and end: a fulfilment cancels its order."""
    _intervene(process_id, "compensate", {}, command_url, token_file, data_dir, json=json)


@processes.command()
def trace(
    order_id: Annotated[str, typer.Argument(metavar="ORDER_ID")],
    query_url: QueryUrl = None,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """Print the journey of an order as a tree: which command, event, effect or timer led to which, and when."""
    from cli.process_admin.services import queries
    from cli.process_admin.trace import print_trace

    print_trace(queries(query_url, token_file, data_dir), order_id, as_json=json)


def _intervene(
    process_id: str,
    intervention: str,
    body: Mapping[str, object],
    command_url: CommandUrl,
    token_file: TokenFile,
    data_dir: DataDir,
    *,
    json: bool,
) -> None:
    from cli.process_admin.services import commands
    from cli.tables import print_fields

    service = commands(command_url, token_file, data_dir)
    answer = service.post(f"/processes/{service.quote(process_id)}/{intervention}", body)
    print_fields({name: answer[name] for name in ("aggregate_id", "version", "position")}, as_json=json)
