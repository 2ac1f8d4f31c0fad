"""The base class of the embedded servers: a process, its port, its password."""

from __future__ import annotations

import os
import random
import secrets
import socket
import subprocess
import time
from abc import abstractmethod
from pathlib import Path
from typing import Self

from cli.stack.processes import ending, last_lines
from cli.stack.server import Server

HOST = "127.0.0.1"
START_ATTEMPTS = 6


class ServerError(Exception):
    """A server did not initialise or start; the message holds the end of its log."""


def free_port() -> int:
    """A TCP port on which no server listens.

    It is below the range of ports for outgoing connections. Within that range, a client that keeps connecting to a
    dead server can get the server's own port, connect to itself, and block the server's return.
    """
    while True:
        port = random.randint(15_000, 32_000)
        if port_is_free(port):
            return port


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


class EmbeddedServer(Server):
    """A server with its data in a directory, on a free port of 127.0.0.1, behind a password.

    It keeps port and password for the life of the object: its clients see `kill()` and `start()` as a crash and a
    recovery. Calls block for a fraction of a second. The server ends when this process ends, however it ends.
    """

    def __init__(
        self,
        directory: Path,
        *,
        password: str | None = None,
        log: Path | None = None,
    ) -> None:
        """`initialise` creates the directory when missing; `log` is `<directory>.log` unless given."""
        self.directory = directory.absolute()
        self.password = password or secrets.token_urlsafe(24)
        self.log = (log or directory.with_name(directory.name + ".log")).absolute()
        self.port = 0
        self._answered = False

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect, password included. Valid once started."""

    @abstractmethod
    def initialise(self) -> None:
        """Prepare the directory for the first start; does nothing later. Raises ServerError, BinaryMissing."""

    @abstractmethod
    def _launch(self) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def spawn(self) -> None:
        """Launch the process without waiting for it. Chooses another port until the server has answered once."""
        if not self._answered:
            self.port = free_port()
        self.process = self._launch()

    def ready(self) -> bool:
        """Whether the server takes connections. Blocks for at most a second."""
        if self.pid is None or not self._answers():
            return False
        self._answered = True
        return True

    def start(self, timeout: float = 60.0) -> Self:
        """Initialise, launch, and wait until the server takes connections. Raises ServerError, BinaryMissing.

        `timeout` in seconds includes crash recovery. A server that exits is started again: another process may have
        taken the port, or the previous server's children may still run.
        """
        self.initialise()
        deadline = time.monotonic() + timeout
        for attempt in range(START_ATTEMPTS):
            time.sleep(attempt * 0.1)
            self.spawn()
            while self.pid is not None:
                if self.ready():
                    return self
                if time.monotonic() > deadline:
                    self.kill()
                    raise ServerError(f"{self.name} took no connections for {timeout:.0f} s\n{last_lines(self.log, 5)}")
                time.sleep(0.01)
        assert self.process is not None
        raise ServerError(f"{self.name} ended with {ending(self.process.wait())}\n{last_lines(self.log, 5)}")

    @property
    def state(self) -> str:
        """The last line of its log."""
        return last_lines(self.log, 1)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def bare_environment() -> dict[str, str]:
    """An environment without the user's PGPORT, PGDATA or locale, which would change what the servers do."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
