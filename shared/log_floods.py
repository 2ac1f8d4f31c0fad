"""A bound on how often an event is logged: what comes in floods is counted, not written line by line."""

from __future__ import annotations

import atexit
import threading
from collections import Counter
from collections.abc import Callable
from contextvars import Context

LINES = 20  # of one event in a window; the others are counted
WINDOW_SECONDS = 10.0
_EVENTS = 1_000  # that a window tells apart
_OTHERS = "other events"


class FloodLimit:
    """Admits `lines` lines of an event in a window. At its end `report` is called with each event that had more, and
    how many lines were not admitted; in `context`, in a thread of its own, or when the process ends."""

    def __init__(
        self,
        report: Callable[[str, int], object],
        context: Context,
        lines: int = LINES,
        seconds: float = WINDOW_SECONDS,
    ) -> None:
        self._report = report
        self._context = context
        self._lines = lines
        self._seconds = seconds
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()
        self._window: threading.Timer | None = None
        atexit.register(self._end_window)

    def admits(self, event: str) -> bool:
        """Whether another line of that event may be written now."""
        with self._lock:
            if self._window is None:
                self._window = threading.Timer(self._seconds, self._end_window)
                self._window.daemon = True
                self._window.start()
            if event not in self._seen and len(self._seen) >= _EVENTS:
                event = _OTHERS
            self._seen[event] += 1
            return self._seen[event] <= self._lines

    def _end_window(self) -> None:
        with self._lock:
            if self._window is not None:
                self._window.cancel()
            seen, self._seen, self._window = self._seen, Counter(), None
        for event, count in seen.items():
            if count > self._lines:
                self._context.run(self._report, event, count - self._lines)
