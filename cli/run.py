"""`orders run`: one process, with its settings from the environment."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any, Literal, assert_never

import typer

from cli.failure import CommandFailed

if TYPE_CHECKING:
    from shared.settings import Settings

ProcessName = Literal["command", "processes", "projector", "query", "sandbox"]


def run(
    name: Annotated[
        ProcessName, typer.Argument(metavar="NAME", help="command, processes, projector, query or sandbox")
    ],
) -> None:
    """Run one process, with its settings from the environment."""
    import uvloop

    from cli.failure import BadArgument
    from cli.settings import load_settings
    from command_service.gateways.gateway import GatewayMissing
    from shared.identity.access import InsecureSettings
    from shared.logs import configure_logs
    from shared.privacy.key_encryption import UnusableSecrets

    settings = load_settings()
    configure_logs(name, settings.log_level)
    try:
        process = _process(name, settings)
    except (GatewayMissing, InsecureSettings, UnusableSecrets) as error:
        raise BadArgument(str(error)) from error
    # The server stops in good order at SIGTERM and then raises the signal again, when nothing is left to end.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with contextlib.suppress(KeyboardInterrupt):
        if name != "sandbox":  # it uses no database
            uvloop.run(_refuse_pooler(settings))
        uvloop.run(process)


async def _refuse_pooler(settings: Settings) -> None:
    """Raises CommandFailed where a pooler gives this process no session. Without the server, the process starts."""
    import asyncpg

    from shared.postgres import CONNECTION_LOST, TransactionPooling, connect

    try:
        connection = await connect(settings, "start", target="any")
    except TransactionPooling as error:
        raise CommandFailed(str(error)) from error
    except (*CONNECTION_LOST, asyncpg.PostgresError):
        return
    connection.terminate()


def _process(name: ProcessName, settings: Settings) -> Coroutine[Any, Any, None]:
    match name:
        case "command":
            from command_service.admission import protocol
            from command_service.app import create_app as create_command_app
            from shared.http.server import serve

            app = create_command_app(settings)
            return serve(app, settings.command_port, settings, protocol(app.state.limit))
        case "query":
            from query_service.app import create_app as create_query_app
            from shared.http.server import serve

            return serve(create_query_app(settings), settings.query_port, settings)
        case "processes":
            from command_service.processes.app import run as run_processes

            return run_processes(settings)
        case "projector":
            from projector.__main__ import run as run_projector

            return run_projector(settings)
        case "sandbox":
            from command_service.gateways.sandbox.app import create_app as create_sandbox_app
            from shared.http.server import serve

            return serve(create_sandbox_app(settings), settings.sandbox_port, settings)
        case _:
            assert_never(name)
