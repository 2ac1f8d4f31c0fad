"""`make setup`, with a Python and a uv that only note what they are asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.orders_command import REPOSITORY

pytestmark = pytest.mark.subprocess

# "Fetching" uv puts a script in its place. `touch no-uv` makes that fail, `touch uv-fails` makes uv itself fail, and
# `touch interrupted` terminates the whole set-up while uv installs the development tools.
PYTHON = """#!/bin/sh
echo "python $*" >> calls
case "$*" in
*"-m venv"*)
    for directory; do :; done
    rm -rf "$directory" && mkdir -p "$directory/bin" && ln -s "$PWD/python" "$directory/bin/python" ;;
*installer.lock*)
    test ! -e no-uv && ln -s "$PWD/uv" .venv/bin/uv ;;
esac
"""
UV = """#!/bin/sh
echo "uv $*" >> calls
case "$*" in *dev.lock*) if test -e interrupted; then kill -TERM "$PPID" && exit 143; fi ;; esac
test ! -e uv-fails
"""


class Checkout:
    """A directory with the files that set-up reads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        shutil.copy(REPOSITORY / "Makefile", directory)
        shutil.copy(REPOSITORY / "pyproject.toml", directory)
        shutil.copytree(REPOSITORY / "requirements", directory / "requirements")
        for name, script in {"python": PYTHON, "uv": UV}.items():
            (directory / name).write_text(script)
            (directory / name).chmod(0o755)

    def touch(self, name: str) -> None:
        (self._directory / name).touch()

    def remove(self, name: str) -> None:
        (self._directory / name).unlink()

    def edit(self, name: str) -> None:
        """As if the file was changed after everything that is there was made."""
        newest = max(path.lstat().st_mtime for path in (self._directory / ".venv").iterdir())
        os.utime(self._directory / name, (newest + 1, newest + 1))

    def make(self, target: str = "setup") -> tuple[str, list[str]]:
        """What it says, and what it installs with what, such as `uv dev.lock`."""
        (self._directory / "calls").write_text("")
        # A make that runs these tests would hand on its own flags and announce the directory of this one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        make = subprocess.run(
            ["make", f"PYTHON={self._directory}/python", target],
            cwd=self._directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        calls = (self._directory / "calls").read_text().splitlines()
        installs = [call for call in calls if " install " in call]
        return make.stdout, [f"{call.split()[0]} {call.split()[-1].split('/')[-1]}" for call in installs]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


EVERYTHING = ["python installer.lock", "uv embedded.lock", "uv .", "uv dev.lock"]


def test_uv_installs_and_each_step_is_announced(checkout: Checkout) -> None:
    said, installs = checkout.make()
    assert installs == EVERYTHING
    assert [line.split()[0] for line in said.splitlines()] == ["making", "fetching", *["installing"] * 3]


def test_nothing_is_done_twice(checkout: Checkout) -> None:
    checkout.make()
    assert checkout.make()[1] == []


@pytest.mark.parametrize("broken", ["no-uv", "uv-fails"])
def test_pip_installs_the_same_where_uv_cannot(checkout: Checkout, broken: str) -> None:
    checkout.touch(broken)
    said, installs = checkout.make()
    assert [call for call in installs if call.startswith("python")] == [
        call.replace("uv", "python") for call in EVERYTHING
    ]
    assert "pip takes a few minutes" in said


def test_an_interrupted_set_up_is_done_again_from_the_start(checkout: Checkout) -> None:
    checkout.touch("interrupted")
    checkout.make()
    checkout.remove("interrupted")
    assert checkout.make()[1] == EVERYTHING


@pytest.mark.parametrize("lock", ["installer", "embedded", "dev"])
def test_a_changed_lock_makes_the_environment_anew(checkout: Checkout, lock: str) -> None:
    checkout.make()
    checkout.edit(f"requirements/{lock}.lock")
    assert checkout.make()[1] == EVERYTHING
