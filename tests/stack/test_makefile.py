"""The commands of the README."""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict

import pytest

from tests.orders_command import REPOSITORY

pytestmark = pytest.mark.subprocess


def dry_run(*arguments: str) -> str:
    """What make would run."""
    make = ["make", "--dry-run", "--always-make", "PYTHON=python3", *arguments]
    return subprocess.check_output(make, cwd=REPOSITORY, text=True)


@pytest.mark.parametrize(
    ("target", "lock", "command"),
    [("up", "embedded", "orders up"), ("test", "dev", "python -m pytest"), ("check", "dev", "ruff check")],
)
def test_every_target_sets_up_first(target: str, lock: str, command: str) -> None:
    commands = dry_run(target)
    assert commands.index(f"--require-hashes -r requirements/{lock}.lock") < commands.index(f".venv/bin/{command}")


def test_make_up_installs_no_development_tools() -> None:
    assert "dev.lock" not in dry_run("up")


def test_make_up_and_make_test_are_the_first_two_commands_of_the_readme() -> None:
    first_block = (REPOSITORY / "README.md").read_text().split("```")[1]
    _, first, second, *_ = first_block.splitlines()
    assert [line.partition("#")[0].strip() for line in (first, second)] == ["make up", "make test"]


def test_arguments_reach_the_command() -> None:
    assert ".venv/bin/orders up --data-dir elsewhere" in dry_run("up", "ARGS=--data-dir elsewhere")
    assert re.search("-m pytest .*-k stack", dry_run("test", "ARGS=-k stack"))


def test_the_interpreter_can_be_chosen() -> None:
    assert "python9.9 -m venv" in dry_run("setup", "PYTHON=python9.9")


def test_a_package_has_the_same_version_in_all_locks() -> None:
    locks = sorted((REPOSITORY / "requirements").glob("*.lock"))
    assert [lock.stem for lock in locks] == ["bench", "browser", "dev", "embedded", "installer", "runtime"]
    versions = defaultdict(set)
    for lock in locks:
        pins = re.findall(r"^([\w.-]+)(==.*)", lock.read_text(), re.MULTILINE)
        for name in {name for name, _ in pins}:
            versions[name].add(tuple(sorted(pin for pinned, pin in pins if pinned == name)))
    assert {name: pins for name, pins in versions.items() if len(pins) > 1} == {}


def test_the_lock_has_a_hash_for_everything_and_names_no_address() -> None:
    for lock in (REPOSITORY / "requirements").rglob("*.lock"):
        text = lock.read_text()
        requirements = [line for line in text.splitlines() if line and line[0] not in " #"]
        assert requirements
        assert all(line.endswith("\\") for line in requirements)
        assert "://" not in text


def test_the_lock_of_npm_has_a_hash_for_everything_and_names_no_address() -> None:
    lock = json.loads((REPOSITORY / "requirements" / "openapi" / "package-lock.json").read_text())
    packages = [package for name, package in lock["packages"].items() if name]
    assert packages
    assert all("resolved" not in package and "integrity" in package for package in packages)


def test_faults_and_the_openapi_documents_have_targets_of_their_own() -> None:
    assert '-m "not faults and not openapi"' in dry_run("test")
    assert "-m pytest tests/faults" in dry_run("test-faults")
    assert "-m openapi tests/browser" in dry_run("test-openapi")


def test_the_fast_tests_are_those_without_subprocesses() -> None:
    assert '-m "not subprocess and not faults and not openapi"' in dry_run("test-fast")


def test_the_benchmarks_install_what_they_compare_with() -> None:
    commands = dry_run("bench", "ARGS=--quick")
    assert commands.index("-r requirements/dev.lock") < commands.index("-r requirements/bench.lock")
    assert commands.index("-r requirements/bench.lock") < commands.index("-m bench --quick")
    assert "bench.lock" not in dry_run("bench-check")


def test_ci_runs_the_checks_and_the_tests() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    steps = [line.partition(" ||")[0] for line in script if line.startswith("make")]
    assert steps == [
        "make check",
        "make browser openapi",
        "make test",
        "make test-thorough",
        "make lint-openapi",
        "make test-faults",
        "make bench-check",
    ]
