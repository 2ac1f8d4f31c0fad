"""Starts servers, restarts those that die, stops all of them in order."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from cli.stack.processes import ending, last_lines, rotate
from cli.stack.server import Server

TICK_SECONDS = 0.05
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 30.0  # after this long the pauses begin at the shortest again
DEATHS_BEFORE_READY = 3  # in a row, then the start fails
MESSAGE_SECONDS = 3.0  # between two messages about servers that are not ready
STOP_SECONDS = 35.0  # longer than a service takes at most, see docker-compose.yml


class StopRequested(Exception):
    """SIGINT, SIGTERM or SIGHUP has arrived."""


class StartFailed(Exception):
    """A server died repeatedly before it was ready; the message has the end of its log."""


class StopSignals:
    """Counts SIGINT, SIGTERM and SIGHUP. Loops poll the count, so that no step is interrupted."""

    def __init__(self) -> None:
        """Install the signal handlers of this process."""
        self.received = 0
        self._wake_up, wake_up_writer = os.pipe()
        for end in (self._wake_up, wake_up_writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_up_writer, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes the loop when a child ends

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.received += 1

    def pause(self, seconds: float) -> None:
        """Sleep until a signal arrives, at most `seconds`."""
        if select.select([self._wake_up], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_up, 4096)

    def check(self) -> None:
        """Raises StopRequested once a stop signal has arrived."""
        if self.received:
            raise StopRequested


class _Child:
    """A server and its restarts."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.was_ready = False
        self.is_ready = False
        self.deaths = 0
        self.spawned_at = 0.0
        self.due_at: float | None = None  # when to spawn it again


class Supervisor:
    """Runs servers.

    `tell` prints a line for the user; `changed` is called after every start and restart.
    """

    def __init__(self, signals: StopSignals, tell: Callable[[str], None], changed: Callable[[], None]) -> None:
        self._signals = signals
        self._tell = tell
        self._changed = changed
        self._children: list[_Child] = []

    @property
    def servers(self) -> Iterator[Server]:
        """Everything started so far, in order."""
        return (child.server for child in self._children)

    def start(self, servers: Sequence[Server]) -> None:
        """Start `servers` in parallel and wait until all are ready; keeps the earlier ones running meanwhile.

        Raises StopRequested, StartFailed. The caller stops what was started.
        """
        for server in servers:
            self._children.append(child := _Child(server))
            self._spawn(child)
        told_at = time.monotonic()
        while waiting := [child for child in self._children if not child.was_ready]:
            self._step()
            if time.monotonic() - told_at > MESSAGE_SECONDS:
                told_at = time.monotonic()
                for child in waiting:
                    self._tell(f"waiting for {child.server.name}: {child.server.state}")

    def run(self) -> None:
        """Keep all servers running. Raises StopRequested."""
        while True:
            self._step()

    def stop(self, order: Sequence[Server]) -> None:
        """Stop the servers in this order. After one more stop signal the rest is killed."""
        kills_at = self._signals.received + 1
        for server in order:
            server.request_stop()
            deadline = time.monotonic() + STOP_SECONDS
            while server.pid is not None:
                if time.monotonic() > deadline or self._signals.received >= kills_at:
                    self._tell(f"{server.name} does not stop in time: killed")
                    server.kill()
                self._signals.pause(TICK_SECONDS)

    def _step(self) -> None:
        self._signals.check()
        for child in self._children:
            with contextlib.suppress(OSError):  # a full disk must not end the servers
                rotate(child.server.log)
            if child.due_at is not None:
                if time.monotonic() >= child.due_at:
                    self._spawn(child)
            elif child.server.pid is None:
                self._note_death(child)
            elif not child.is_ready and child.server.ready():
                self._note_ready(child)
        self._signals.pause(TICK_SECONDS)

    def _spawn(self, child: _Child) -> None:
        child.due_at = None
        child.spawned_at = time.monotonic()
        child.server.spawn()
        with contextlib.suppress(OSError):  # a full disk must not end the servers
            self._changed()

    def _note_ready(self, child: _Child) -> None:
        if child.was_ready:
            self._tell(f"{child.server.name} is back")
        child.is_ready = child.was_ready = True

    def _note_death(self, child: _Child) -> None:
        server = child.server
        assert server.process is not None
        how = ending(server.process.wait())
        if child.is_ready and time.monotonic() - child.spawned_at > STEADY_SECONDS:
            child.deaths = 0
        child.is_ready = False
        child.deaths += 1
        if not child.was_ready and child.deaths >= DEATHS_BEFORE_READY:
            raise StartFailed(f"{server.name} does not start: {how}\n{last_lines(server.log, 10)}\n(log: {server.log})")
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (child.deaths - 1), LONGEST_PAUSE_SECONDS)
        child.due_at = time.monotonic() + pause
        self._tell(f"{server.name} died: {how}. Restarting in {pause:.1f} s (log: {server.log})")
