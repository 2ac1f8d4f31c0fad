"""Keeps servers running: starts them, restarts what dies, stops all of them in order."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from cli.stack.processes import ending, last_lines
from cli.stack.server import Server

TICK_SECONDS = 0.05
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 30.0  # a server that ran this long starts over with the shortest pause
DEATHS_BEFORE_READY = 3  # in a row; then a start is given up
PATIENCE_SECONDS = 3.0  # between two messages about what is being waited for
STOP_SECONDS = 35.0  # longer than a service takes at most, see docker-compose.yml


class StopRequested(Exception):
    """Ctrl-C, SIGTERM, or the terminal is gone."""


class StartFailed(Exception):
    """A server keeps dying before it was ever ready; the message holds the end of its log."""


class StopSignals:
    """Turns SIGINT, SIGTERM and SIGHUP into a count that loops look at, so that nothing is interrupted half-way."""

    def __init__(self) -> None:
        """Take over the signals of this process."""
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


class _Watch:
    """What the supervisor knows about one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.was_ready = False
        self.is_ready = False
        self.deaths = 0
        self.spawned_at = 0.0
        self.due_at: float | None = None  # when to spawn again


class Supervisor:
    """Runs servers on behalf of a person at a terminal.

    `tell` prints a line; `changed` is called after every (re)start, when process ids have changed.
    """

    def __init__(self, signals: StopSignals, tell: Callable[[str], None], changed: Callable[[], None]) -> None:
        self._signals = signals
        self._tell = tell
        self._changed = changed
        self._watches: list[_Watch] = []

    @property
    def servers(self) -> Iterator[Server]:
        """Everything started so far, in order."""
        return (watch.server for watch in self._watches)

    def start(self, servers: Sequence[Server]) -> None:
        """Start `servers` side by side and wait until all are ready, while keeping the earlier ones running.

        Raises StopRequested, StartFailed. What was started stays: the caller stops it.
        """
        for server in servers:
            self._watches.append(watch := _Watch(server))
            self._spawn(watch)
        told_at = time.monotonic()
        while waiting := [watch for watch in self._watches if not watch.was_ready]:
            self._step()
            if time.monotonic() - told_at > PATIENCE_SECONDS:
                told_at = time.monotonic()
                for watch in waiting:
                    self._tell(f"waiting for {watch.server.name}: {watch.server.state}")

    def run(self) -> None:
        """Keep everything running for ever. Raises StopRequested."""
        while True:
            self._step()

    def stop(self, order: Sequence[Server]) -> None:
        """Stop one after the other. One more stop signal, and the rest is not waited for any longer."""
        patience_ends_with = self._signals.received + 1
        for server in order:
            server.request_stop()
            deadline = time.monotonic() + STOP_SECONDS
            while server.pid is not None:
                if time.monotonic() > deadline or self._signals.received >= patience_ends_with:
                    self._tell(f"{server.name} does not stop in time: killed")
                    server.kill()
                self._signals.pause(TICK_SECONDS)

    def _step(self) -> None:
        self._signals.check()
        for watch in self._watches:
            if watch.due_at is not None:
                if time.monotonic() >= watch.due_at:
                    self._spawn(watch)
            elif watch.server.pid is None:
                self._note_death(watch)
            elif not watch.is_ready and watch.server.ready():
                self._note_ready(watch)
        self._signals.pause(TICK_SECONDS)

    def _spawn(self, watch: _Watch) -> None:
        watch.due_at = None
        watch.spawned_at = time.monotonic()
        watch.server.spawn()
        self._changed()

    def _note_ready(self, watch: _Watch) -> None:
        if watch.was_ready:
            self._tell(f"{watch.server.name} is back")
        watch.is_ready = watch.was_ready = True

    def _note_death(self, watch: _Watch) -> None:
        server = watch.server
        assert server.process is not None
        how = ending(server.process.wait())
        if watch.is_ready and time.monotonic() - watch.spawned_at > STEADY_SECONDS:
            watch.deaths = 0
        watch.is_ready = False
        watch.deaths += 1
        if not watch.was_ready and watch.deaths >= DEATHS_BEFORE_READY:
            raise StartFailed(f"{server.name} does not start: {how}\n{last_lines(server.log, 10)}\n(log: {server.log})")
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (watch.deaths - 1), LONGEST_PAUSE_SECONDS)
        watch.due_at = time.monotonic() + pause
        self._tell(f"{server.name} died: {how}. Restarting in {pause:.1f} s (log: {server.log})")
