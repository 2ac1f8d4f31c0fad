"""`orders up` when something dies."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from cli.stack.accounts import Account, nobody
from cli.stack.descriptor import Process, Stack
from tests.orders_command import REPOSITORY, run_orders
from tests.running import wait_until
from tests.stack.conftest import StartUp, running, start_up
from tests.stack.orders_up import OrdersUp, living

__all__ = ["running", "start_up"]  # fixtures


@pytest.mark.promise("orders-up", "A process that dies is started again at the same address")
@pytest.mark.parametrize("name", ["command", "query", "projector", "valkey", "postgres"])
def test_a_child_that_dies_is_restarted_where_it_was(name: str, running: OrdersUp) -> None:
    before = running.descriptor
    messages = len(running.terminal)
    os.kill(before.children[name].pid, signal.SIGKILL)
    wait_until(lambda: f"{name} is back" in running.terminal[messages:], f"{name} is back")
    assert f"{name} died: killed by SIGKILL. Restarting in" in running.terminal[messages:]
    after = running.descriptor
    assert after.children[name].pid != before.children[name].pid
    assert (after.database_url, after.redis_url, after.projector_url) == (
        before.database_url,
        before.redis_url,
        before.projector_url,
    )
    for url in (running.command_url, running.query_url):
        wait_until(lambda url=url: httpx.get(f"{url}/readyz", timeout=30).is_success, f"{url} is ready again")  # type: ignore[misc]
    assert running.order_total(*running.place_order()) == 1530


@pytest.mark.promise("orders-up", "The next start stops survivors of a killed run and leaves other processes alone")
def test_survivors_of_a_killed_run_are_stopped_and_strangers_are_left_alone(tmp_path: Path) -> None:
    """What happens where the kernel does not end the children of a dead process."""
    with sleeper() as survivor, sleeper() as stranger:
        stack = Stack(
            children={
                "valkey": Process.of(survivor.pid),
                "postgres": Process(stranger.pid, "an earlier process of the same number"),
            }
        )
        stack.save(tmp_path)
        refused = run_orders("up", "--data-dir", str(tmp_path), "--command-port", "8001", "--query-port", "8001")
        assert f"stopped valkey (process {survivor.pid})" in refused.stdout
        assert survivor.wait(5) == -signal.SIGTERM
        assert stranger.poll() is None
        stranger.kill()


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


@pytest.mark.promise("orders-up", "A service that cannot start is given up with the end of its log")
def test_a_service_that_cannot_start_is_given_up_with_the_end_of_its_log(tmp_path: Path, start_up: StartUp) -> None:
    stack = start_up(tmp_path / "data", LOG_LEVEL="LOUD")
    assert stack.process.wait(30) == 1
    assert "does not start: exit code 2" in stack.terminal
    assert "LOG_LEVEL" in stack.terminal
    assert "Traceback" not in stack.terminal


class OrdinaryUser(NamedTuple):
    """A user that is not root; `account` is None when that is us."""

    account: Account | None
    environment: dict[str, str]


@pytest.fixture
def ordinary_user(tmp_path: Path) -> Iterator[OrdinaryUser]:
    """Can reach the interpreter while the test runs, and a copy of the code where it may not read the original."""
    if os.geteuid() != 0:
        yield OrdinaryUser(None, {})
        return
    account = nobody()
    for package in ("cli", "shared", "migrations", "command_service", "query_service", "projector"):
        shutil.copytree(REPOSITORY / package, tmp_path / "code" / package)
    subprocess.run(["chmod", "-R", "a+rX", tmp_path / "code"], check=True)
    needed = [Path(sys.prefix) / "bin", Path(sys.base_prefix) / "bin", tmp_path]
    modes = {parent: parent.stat().st_mode for path in needed for parent in path.resolve().parents}
    for parent, mode in modes.items():
        parent.chmod(mode | stat.S_IXOTH)
    os.chown(tmp_path, *account)
    try:
        yield OrdinaryUser(account, {"PYTHONPATH": str(tmp_path / "code"), "HOME": str(tmp_path)})
    finally:
        for parent, mode in modes.items():
            parent.chmod(mode)


@pytest.mark.promise("orders-up", "It runs as root and as an ordinary user")
def test_it_runs_as_an_ordinary_user_until_ctrl_c(
    tmp_path: Path, start_up: StartUp, ordinary_user: OrdinaryUser
) -> None:
    stack = start_up(tmp_path / "data", ordinary_user.account, **ordinary_user.environment).until_ready()
    user = os.geteuid() if ordinary_user.account is None else ordinary_user.account.uid
    processes = stack.processes()
    assert {process.uids().real for process in processes} == {user}
    assert stack.order_total(*stack.place_order()) == 1530
    assert stack.stop(signal.SIGINT) == 0
    assert living(processes) == []


@pytest.mark.promise("orders-up", "A directory that it cannot write is reported in words")
def test_a_directory_that_cannot_be_written_is_refused_in_words(
    tmp_path: Path, start_up: StartUp, ordinary_user: OrdinaryUser
) -> None:
    (tmp_path / "read-only").mkdir()
    (tmp_path / "read-only").chmod(0o555)
    stack = start_up(tmp_path / "read-only" / "data", ordinary_user.account, **ordinary_user.environment)
    assert stack.process.wait(20) == 1
    assert "Permission denied. Choose another with --data-dir." in stack.terminal
    assert "Traceback" not in stack.terminal
