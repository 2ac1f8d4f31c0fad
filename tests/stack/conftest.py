from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from cli.stack.accounts import Account
from tests.stack.orders_up import OrdersUp


class StartUp(Protocol):
    """Starts `orders up` on a data directory; it is stopped after the test."""

    def __call__(self, data_dir: Path, account: Account | None = None, **environment: str) -> OrdersUp: ...


@pytest.fixture
def start_up(tmp_path: Path) -> Iterator[StartUp]:
    started: list[OrdersUp] = []

    def start(data_dir: Path, account: Account | None = None, **environment: str) -> OrdersUp:
        started.append(OrdersUp(data_dir, account, terminal=tmp_path / f"terminal-{len(started)}", **environment))
        return started[-1]

    yield start
    for stack in started:
        stack.stop()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrdersUp]:
    """A stack that is ready, shared by the tests that leave it as they found it."""
    stack = OrdersUp(tmp_path_factory.mktemp("running") / "data")
    try:
        yield stack.until_ready()
    finally:
        stack.stop()
