"""One server process: launched, asked whether it is ready, stopped."""

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
        """Whether it can do its work. Never blocks for long."""

    @property
    @abstractmethod
    def state(self) -> str:
        """What it is doing while it is not ready, in words."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def request_stop(self) -> None:
        """Ask it to stop in good order; returns at once."""
        if self.process is not None and self.pid is not None:
            self.process.send_signal(self.stop_signal)

    def stop(self, timeout: float = 30.0) -> None:
        """Stop in good order; kill after `timeout` seconds. Nothing to do when it does not run."""
        if self.process is None:
            return
        self.request_stop()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """`kill -9`, as a crash would. Nothing to do when it does not run."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
