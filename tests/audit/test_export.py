"""Handing the log out: JSON Lines from us, CSV from psql."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from cli.stack.binaries import postgres_binary
from tests.audit.evidence import BUSINESS_TIME, TOOL, Log, audit, verify_log
from tests.audit.tampering import LAST


def test_the_export_holds_every_field_and_both_hashes(untouched: Log) -> None:
    answer = audit("export", "--database-url", untouched.url, "--from", 4, "--to", 4)
    event = json.loads(answer.output)
    assert list(event) == [
        "position", "stream_id", "version", "event_id", "event_type", "schema_version", "data", "metadata",
        "occurred_at", "recorded_at", "previous_hash", "hash",
    ]  # fmt: skip
    assert (event["position"], event["stream_id"], event["version"]) == (4, "order-2", 1)
    assert json.loads(event["data"])["product_name"] == 'Café 🍵, "large"\n'
    assert event["metadata"] == '{ "actor":"shop",\r\n "correlation_id":"2"}'
    assert event["occurred_at"] == "2026-03-01T09:30:02.123456Z"
    assert BUSINESS_TIME.microsecond == 123456


def test_each_line_names_the_hash_of_the_line_before(untouched: Log) -> None:
    events = [json.loads(line) for line in audit("export", "--database-url", untouched.url).output.splitlines()]
    assert [event["position"] for event in events] == list(range(1, LAST + 1))
    assert [event["previous_hash"] for event in events[1:]] == [event["hash"] for event in events[:-1]]
    log_id = re.search(r"log +(\S+)", audit("verify", "--database-url", untouched.url).output)
    assert log_id is not None
    genesis = hashlib.sha256(bytes.fromhex(log_id[1].replace("-", ""))).hexdigest()
    assert events[0]["previous_hash"] == genesis


def test_a_file_is_written_whole_or_not_at_all(untouched: Log, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    answer = audit("export", "--database-url", untouched.url, "--from", 31, "--output", file)
    assert answer.output == f"30 events in {file}\n"
    assert [json.loads(line)["position"] for line in file.read_bytes().splitlines()] == list(range(31, LAST + 1))
    refused = audit("export", "--database-url", untouched.url, "--output", tmp_path / "absent" / "log.jsonl")
    assert refused.exit_code == 2
    assert refused.output.startswith("orders: cannot write ")


def test_a_range_that_makes_no_sense_is_refused(untouched: Log) -> None:
    assert audit("export", "--database-url", untouched.url, "--from", 9, "--to", 8).exit_code == 2
    assert audit("export", "--database-url", untouched.url, "--from", 0).exit_code == 2
    assert audit("export", "--database-url", untouched.url, "--from", LAST + 1) == (0, "")


def test_a_closed_pipe_ends_the_export_without_an_error(untouched: Log) -> None:
    command = f"{sys.executable} -m cli audit export --database-url '{untouched.url}' | head -n 1"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert json.loads(result.stdout)["position"] == 1
    assert result.stderr == ""


def test_the_psql_commands_of_the_stand_alone_verifier_export_what_it_needs(disposable: Log, tmp_path: Path) -> None:
    documented = ast.get_docstring(ast.parse(TOOL.read_text())) or ""
    script = documented[documented.index("export PGCLIENTENCODING") : documented.index("python verify_log.py")]
    path = f"{postgres_binary('psql').parent}:{os.environ['PATH']}"
    # Whatever the habits of the session and of the database are.
    environment = {**os.environ, "PATH": path, "DATABASE_URL": disposable.url, "PGTZ": "Asia/Kathmandu"}
    database = urlsplit(disposable.url).path.removeprefix("/")
    disposable.execute(f"alter database {database} set datestyle = 'SQL, DMY'")
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=environment, check=True, timeout=30)
    answer = verify_log(tmp_path / "events.csv", "--head", tmp_path / "head.csv", *disposable.seal_options)
    assert answer.finding is None


def test_the_stand_alone_verifier_says_what_is_wrong_with_a_file(untouched: Log, tmp_path: Path) -> None:
    events, head = untouched.exported()
    lines = events.read_text().splitlines(keepends=True)
    bad = tmp_path / "bad.csv"
    for content in ("", "".join(lines[1:]), lines[0] + "1,2,3\n", "".join(lines).replace("+00", "")):
        bad.write_text(content)
        answer = verify_log(bad, "--head", head)
        assert answer.exit_code == 2, answer.output
        assert f"verify_log: {bad}" in answer.output
    assert verify_log(tmp_path / "absent", "--head", head).exit_code == 2
