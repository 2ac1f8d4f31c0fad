"""`orders run NAME` as a child process."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from cli.stack.embedded_server import HOST
from cli.stack.processes import launch
from cli.stack.server import Server

PROBE_SECONDS = 1.0


def orders_command(*arguments: str) -> list[str]:
    """The command line of `orders ...` with this interpreter, for any working directory."""
    return [sys.executable, "-P", "-m", "cli", *arguments]


class Service(Server):
    """One of our processes."""

    def __init__(self, name: str, port: int, log: Path, environment: Mapping[str, str]) -> None:
        """`environment` is added to that of this process; it names the databases and the ports."""
        self.name = name
        self.port = port
        self.log = log
        inherited = {name: value for name, value in os.environ.items() if name != "OPERATIONS_PORT"}  # one for all
        self._environment = {**inherited, **environment, "PYTHONUNBUFFERED": "1"}
        self._state = "starting"

    @property
    def state(self) -> str:
        """The detail of the last answer of /readyz."""
        return self._state

    def spawn(self) -> None:
        """Launch `orders run NAME`."""
        self._state = "starting"
        self.process = launch(
            orders_command("run", self.name), log=self.log, env=self._environment, death_signal=signal.SIGTERM
        )

    def ready(self) -> bool:
        """Whether /readyz answers 200."""
        if self.pid is None:
            return False
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PROBE_SECONDS)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            self._state = _detail(answer.read())
        except (OSError, http.client.HTTPException):
            return False  # not listening yet
        finally:
            connection.close()
        return answer.status == http.HTTPStatus.OK


def _detail(body: bytes) -> str:
    try:
        document = json.loads(body)
        return str(document.get("detail") or document.get("status"))
    except (ValueError, AttributeError):
        return body.decode(errors="replace")[:200]
