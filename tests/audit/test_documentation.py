"""The claims and examples of `docs/audit.md` are true."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli.auditing.finding import Kind
from cli.auditing.seals import Seal

DOCUMENT = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.subprocess
def test_the_worked_example_yields_the_hash_that_was_stored() -> None:
    event = json.loads(block("json"))
    command = [sys.executable, "-I", "-c", block("python")]
    printed = subprocess.run(command, input=block("json"), capture_output=True, text=True, check=True).stdout
    assert printed == event["hash"] + "\n"


def test_what_is_signed_is_written_as_it_is_signed() -> None:
    line = re.search(r'^    (\{"log_id".*\})$', DOCUMENT, re.MULTILINE)
    signed = re.search(r"(?:^    \S+( 1|=\S+)\n){7}", DOCUMENT, re.MULTILINE)
    assert line is not None
    assert signed is not None
    assert Seal(**json.loads(line[1])).signed_bytes().decode() == signed[0].replace("    ", "")


def test_every_finding_is_explained() -> None:
    for kind in Kind:
        assert f"`{kind}`" in DOCUMENT


def test_the_tests_that_prove_the_claims_exist() -> None:
    tests = "".join(file.read_text() for file in Path(__file__).parents[1].rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", DOCUMENT))
    assert named
    assert [name for name in named if f"def {name}(" not in tests] == []
