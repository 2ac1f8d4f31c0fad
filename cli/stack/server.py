"""One server process: launch it, probe it, stop it."""

from __future__ import annotations

import signal
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar


class Server(ABC):
    """A child process that answers on a port."""

    name: str
    log: Path
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def spawn(self) -> None:
        """Launch the process, without waiting until it is ready."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it can do its work. Blocks for at most about a second."""

    @property
    @abstractmethod
    def state(self) -> str:
        """What it does while it is not ready, for a message to the user."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def request_stop(self) -> None:
        """Send the stop signal; returns at once."""
        if self.process is not None and self.pid is not None:
            self.process.send_signal(self.stop_signal)

    def stop(self, timeout: float = 30.0) -> None:
        """Send the stop signal and wait; kill after `timeout` seconds. Does nothing when it does not run."""
        if self.process is None:
            return
        self.request_stop()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL and wait. Does nothing when it does not run."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
