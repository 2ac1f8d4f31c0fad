"""docs/guarantees.md names tests that are there, and every test of a fault."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
PROMISES = re.findall(r"^\| (?!promise)(.+) \| (`.+) \|$", PAGE, re.MULTILINE)


def named() -> set[tuple[str, str]]:
    """(file, test) of every proof."""
    proofs = set()
    for _, proof in PROMISES:
        for file, tests in re.findall(r"`(tests/[\w/]+\.py)`((?: `test_\w+`)+)", proof):
            proofs |= {(file, test) for test in re.findall(r"test_\w+", tests)}
    return proofs


def names_in(file: str) -> set[str]:
    path = ROOT / file
    return set(re.findall(r"def (test_\w+)\(", path.read_text())) if path.exists() else set()


def test_every_promise_names_its_proof() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(PROMISES) == len(rows) > 30


def test_every_proof_exists() -> None:
    assert sorted((file, test) for file, test in named() if test not in names_in(file)) == []


def test_every_test_of_a_fault_proves_a_promise() -> None:
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "faults").glob("test_*.py")]
    assert {(file, test) for file in files for test in names_in(file)} <= named()
