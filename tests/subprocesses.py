"""Only a test with the marker `subprocess` starts servers and other programs: those without it are `make test-fast`.

A test has the marker when it uses the servers that all tests share; one that starts a program by itself carries it.
"""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest

_unmarked: list[str] = []  # the id of the test that runs, when it may start nothing


def _refuse_programs(event: str, _arguments: tuple[object, ...]) -> None:
    if event in {"subprocess.Popen", "os.posix_spawn", "os.fork"} and _unmarked:
        raise AssertionError(f"{_unmarked[0]} starts a program: mark it with pytest.mark.subprocess")


sys.addaudithook(_refuse_programs)


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "server_directory" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.subprocess)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if not (item.get_closest_marker("subprocess") or item.get_closest_marker("faults")):
        _unmarked.append(item.nodeid)
    try:
        return (yield)
    finally:
        _unmarked.clear()
