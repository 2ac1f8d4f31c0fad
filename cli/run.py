"""`orders run`: one process, with its settings from the environment."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Coroutine
from typing import Any, Literal, assert_never

import uvloop
from pydantic import ValidationError

from shared.logs import configure_logs
from shared.settings import Settings, settings

ProcessName = Literal["command", "projector", "query"]


class BadSettings(Exception):
    """A variable is missing or out of range; the message names it."""


def run(name: ProcessName) -> None:
    """Run one process until SIGTERM or SIGINT. Raises BadSettings."""
    try:
        configuration = settings()
    except ValidationError as error:
        raise BadSettings(_in_words(error)) from error
    configure_logs(name, configuration.log_level)
    # The server stops in good order at a signal and then raises it again: by then there is nothing left to end.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_process(name, configuration))


def _process(name: ProcessName, configuration: Settings) -> Coroutine[Any, Any, None]:
    match name:
        case "command":
            from command_service.admission import protocol
            from command_service.app import create_app as create_command_app
            from shared.http.application import serve

            app = create_command_app(configuration)
            return serve(app, configuration.command_port, configuration, protocol(app.state.limit))
        case "query":
            from query_service.app import create_app as create_query_app
            from shared.http.application import serve

            return serve(create_query_app(configuration), configuration.query_port, configuration)
        case "projector":
            from projector.__main__ import run as run_projector

            return run_projector(configuration)
        case _:
            assert_never(name)


def _in_words(error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        variable = "_".join(map(str, problem["loc"])).upper()
        problems.append(f"{variable} is not set" if problem["type"] == "missing" else f"{variable}: {problem['msg']}")
    return "; ".join(problems)
