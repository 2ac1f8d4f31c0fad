"""`orders audit verify` as an auditor meets it."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import sys
from pathlib import Path

import asyncpg
import pytest

from cli.auditing import database as auditing_log
from cli.auditing.database import connected
from cli.auditing.finding import Kind
from cli.auditing.rows import COLUMNS, RowDecoder
from cli.auditing.verification import verify
from cli.stack.embedded_server import free_port
from tests.audit.evidence import TOOL, Connection, Log, append_orders, audit, verify_log
from tests.audit.tampering import HEAD_FOLLOWS, LAST, rehash, shift
from tests.orders_command import shown_on_a_terminal


def test_an_intact_log_is_answered_with_its_head(untouched: Log) -> None:
    answer = audit("verify", "--database-url", untouched.url, *untouched.seal_options)
    assert answer.exit_code == 0
    assert re.fullmatch(
        r"log       [-0-9a-f]{36}\n"
        r"position  60\n"
        r"hash      [0-9a-f]{64}\n"
        r"recorded  \d{4}-\d\d-\d\dT[0-9:]{8}\.\d{6}Z\n"
        r"verified  60 events in \S+ s \(\S+ events/s\)\n"
        r"seals     2 agree, the newest of \S+Z at position 60\n",
        answer.output,
    )


def test_both_verifiers_answer_with_the_same_head(untouched: Log) -> None:
    events, head = untouched.exported()
    ours, theirs = audit("verify", "--database-url", untouched.url), verify_log(events, "--head", head)
    assert ours.output.splitlines()[:3] == theirs.output.splitlines()[:3]


async def test_an_empty_log_is_intact(database_url: str) -> None:
    async with connected(database_url) as connection:
        result = await verify(connection)
    assert (result.finding, result.verified) == (None, 0)


@pytest.mark.parametrize("stride", [1, 7, 60])
@pytest.mark.bound("audit, export", "rows of the log")
def test_it_does_not_matter_how_many_events_are_read_at_a_time(
    log: Log, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing_log, "STRIDE", stride)
    assert audit("verify", "--database-url", log.url).finding is None
    log.execute("update events set data = '{}' where position = 57")
    assert audit("verify", "--database-url", log.url).finding == (57, Kind.CHANGED)
    log.execute("delete from events where position between 9 and 55")
    assert audit("verify", "--database-url", log.url).finding == (9, Kind.MISSING)
    log.execute(*shift(56, 2**62))
    assert audit("verify", "--database-url", log.url).finding == (9, Kind.MISSING)


async def test_it_does_not_matter_where_the_stream_of_rows_is_cut(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await append_orders(connection, 1, 4)
    stream = bytearray()

    async def collect(chunk: bytes) -> None:
        stream.extend(chunk)

    rows = f"select {', '.join(COLUMNS)} from events order by position"
    await connection.copy_from_query(rows, output=collect, format="binary")
    await connection.close()
    whole = list(RowDecoder().feed(bytes(stream)))
    for size in (1, 2, 19, 100):
        decoder = RowDecoder()
        pieces = [bytes(stream[at : at + size]) for at in range(0, len(stream), size)]
        assert [row for piece in pieces for row in decoder.feed(piece)] == whole
    assert [row.position for row in whole] == list(range(1, 13))


async def test_a_log_that_grows_meanwhile_is_intact(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing_log, "STRIDE", 5)
    await append_orders(connection, 1, 20)
    enough = asyncio.Event()

    async def grow() -> None:
        number = 21
        while not enough.is_set():
            await append_orders(connection, number, 20)
            number += 20

    growing = asyncio.create_task(grow())
    verified: list[int] = []
    async with connected(database_url) as auditor:
        while len(set(verified)) < 4 and not growing.done():
            result = await verify(auditor)
            assert result.finding is None
            verified.append(result.verified)
    enough.set()
    await growing
    assert verified == sorted(verified)
    assert verified[0] < verified[-1]


async def test_the_auditor_can_only_read(database_url: str) -> None:
    async with connected(database_url) as auditor:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await auditor.execute("delete from idempotency_keys")


def test_from_the_last_seal_on_only_what_came_later_is_verified(log: Log) -> None:
    log.seals.write_bytes(log.seals.read_bytes().splitlines(keepends=True)[0])
    options = ("verify", "--database-url", log.url, *log.seal_options, "--from-last-seal")
    assert "verified  30 events" in audit(*options).output
    log.execute("update events set data = '{}' where position = 31")
    assert audit(*options).finding == (31, Kind.CHANGED)


def test_from_the_last_seal_on_a_rewritten_past_is_still_a_contradiction(log: Log) -> None:
    log.execute("update events set data = '{}' where position = 2", rehash(1), HEAD_FOLLOWS)
    answer = audit("verify", "--database-url", log.url, *log.seal_options, "--from-last-seal")
    assert answer.finding == (30, Kind.SEAL)
    assert "from position 1 to 30" in answer.output


def test_from_the_last_seal_on_the_sealed_event_itself_must_be_there(log: Log) -> None:
    log.execute("delete from events where position = 60")
    options = ("verify", "--database-url", log.url, *log.seal_options, "--from-last-seal")
    assert audit(*options).finding == (60, Kind.CUT_TAIL)


def test_the_role_of_auditors_may_do_all_that_it_takes(untouched: Log) -> None:
    url = f"{untouched.url}?options=-c%20role%3Dorders_auditor"
    assert audit("verify", "--database-url", url, *untouched.seal_options).exit_code == 0
    assert audit("export", "--database-url", url).output.count("\n") == LAST


def test_the_result_is_printed_as_json_too(log: Log) -> None:
    intact = audit("verify", "--json", "--database-url", log.url, *log.seal_options)
    log.execute("update events set data = '{}' where position = 57")
    changed = audit("verify", "--json", "--database-url", log.url)
    assert (intact.exit_code, changed.exit_code) == (0, 1)
    document = json.loads(intact.output)
    assert (document["intact"], document["position"], document["verified"]) == (True, LAST, LAST)
    assert document["seals"].startswith("2 agree")
    finding = json.loads(changed.output)
    assert (finding["intact"], finding["position"], finding["kind"]) == (False, 57, "changed event")


def test_a_terminal_is_shown_progress(untouched: Log) -> None:
    shown = shown_on_a_terminal("audit", "verify", "--database-url", untouched.url)
    assert "verifying" in shown
    assert f"{LAST}/{LAST}" in shown


def test_the_database_may_be_named_by_the_environment(untouched: Log) -> None:
    for name in ("AUDITOR_DATABASE_URL", "DATABASE_URL"):
        assert audit("verify", **{name: untouched.url}).exit_code == 0


def test_a_database_that_cannot_be_reached_is_reported() -> None:
    for url in (f"postgresql://auditor@127.0.0.1:{free_port()}/orders", "nonsense"):
        answer = audit("verify", "--database-url", url)
        assert answer.exit_code == 2
        assert answer.output.startswith("orders: the database cannot be read: ")


def test_a_database_without_a_log_is_reported(disposable: Log) -> None:
    disposable.execute("alter table events rename to hidden")
    answer = audit("verify", "--database-url", disposable.url)
    assert answer.exit_code == 2
    assert answer.output.startswith("orders: this database holds no event log")


def test_without_a_database_the_message_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUDITOR_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    answer = audit("verify")
    assert (answer.exit_code, answer.output[:20]) == (2, "orders: no database:")


def test_the_stand_alone_verifier_shares_no_code_with_the_services() -> None:
    imported = set()
    for node in ast.walk(ast.parse(TOOL.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported - sys.stdlib_module_names == {"cryptography"}
