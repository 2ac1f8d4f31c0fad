"""How often the cyclic garbage collector runs."""

from __future__ import annotations

import gc


def tune_gc() -> None:
    """For a process that has loaded what it needs, and begins its work."""
    # What was loaded by now lives as long as the process; the collector need not visit it again.
    gc.collect()
    gc.freeze()
    # A request or an event makes many objects and hardly a cycle; searching for those after every 700 of them costs 5 %
    # of a request, and 20 % of a rebuild, which keeps thousands of events and documents at a time. Even after 10,000 it
    # costs a tenth at twice the load, when so many requests are in progress at once.
    gc.set_threshold(50_000, 20, 50)
