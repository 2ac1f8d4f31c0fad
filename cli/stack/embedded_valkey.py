"""A Valkey server in a directory of its own, on 127.0.0.1 with a password."""

from __future__ import annotations

import signal
import socket
import subprocess

from cli.stack.binaries import valkey_binary
from cli.stack.embedded_server import HOST, EmbeddedServer, bare_environment
from cli.stack.processes import launch


class EmbeddedValkey(EmbeddedServer):
    """Valkey with an append-only file, flushed every second."""

    name = "valkey"
    stop_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        """A redis:// URL for database 0."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def initialise(self) -> None:
        """Create the directory. Raises BinaryMissing."""
        valkey_binary()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def settings(self) -> dict[str, str]:
        """Its configuration."""
        return {
            "bind": HOST,
            "port": str(self.port),
            "dir": '"' + str(self.directory).replace("\\", "\\\\").replace('"', '\\"') + '"',
            "requirepass": self.password,
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "everysec",
            # At the default of 64 MB, a rebuild of a million events would have a second process rewrite the file
            # three times.
            "auto-aof-rewrite-min-size": "512mb",
            "maxmemory-policy": "noeviction",
            # Keys that query services cache and Valkey sends invalidations for; 130 bytes each.
            "tracking-table-max-keys": "100000",
        }

    def _launch(self) -> subprocess.Popen[bytes]:
        config = "".join(f"{name} {value}\n" for name, value in self.settings().items())
        # The configuration goes through standard input: a process list never shows the password.
        return launch(
            [valkey_binary(), "-"],
            log=self.log,
            env=bare_environment(),
            death_signal=signal.SIGTERM,
            stdin=config.encode(),
        )

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=0.5) as connection:
                connection.settimeout(0.5)
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                return _receive(connection, b"+PONG\r\n")
        except OSError:
            return False


def _receive(connection: socket.socket, expected: bytes) -> bool:
    received = b""
    while not received.endswith(expected):
        chunk = connection.recv(1024)
        if not chunk or b"-" in chunk:  # an error reply: still loading, or another server's password
            return False
        received += chunk
    return True
