"""A log that was given new ids: the chain continues, and events that a restore lost stay a finding."""

from __future__ import annotations

import re

import pytest

from cli.auditing.finding import Kind
from tests.audit.evidence import Connection, Log, append_orders, audit, verify_log
from tests.audit.tampering import HEAD_FOLLOWS, LAST

NEW_ID = "select give_new_log_id('the disk failed')"
# What is left of the sealed log after a backup of position 45 was restored.
RESTORED = ("delete from events where position > 45", HEAD_FOLLOWS)


def outputs(log: Log, *options: object) -> list[str]:
    """Of both verifiers."""
    events, head = log.exported()
    return [
        audit("verify", "--database-url", log.url, *options).output,
        verify_log(events, "--head", head, "--ids", log.ids, *options).output,
    ]


def ids_of(log: Log) -> list[str]:
    """(new, old) of every change, as printed."""
    pattern = r"new id    (\S+) after position \d+, given at \S+Z instead of (\S+): 'the disk failed'"
    [ours, theirs] = [re.findall(pattern, output) for output in outputs(log)]
    assert ours == theirs
    return [log_id for change in ours for log_id in change]


def grow(log: Log, orders: int) -> None:
    async def append(connection: Connection) -> None:
        await append_orders(connection, 101, orders)

    log.change(append)


def seal(log: Log) -> int:
    return audit("seal", "--seals", log.seals, "--key", log.private_key, "--database-url", log.url).exit_code


def test_the_chain_continues_under_new_ids_and_both_verifiers_name_them(log: Log) -> None:
    log.execute(NEW_ID)
    grow(log, 2)
    log.execute(NEW_ID)
    assert log.findings() == [None, None]
    second, _, third, replaced = ids_of(log)
    assert replaced == second
    for output in outputs(log):
        assert f"log       {third}\n" in output
        assert f"new id    {second} after position {LAST}, given at " in output


def test_seals_that_lost_nothing_agree_under_the_new_id_and_newer_ones_join_them(log: Log) -> None:
    log.execute(NEW_ID)
    assert log.findings(*log.seal_options) == [None, None]
    grow(log, 2)
    assert seal(log) == 0
    assert log.findings(*log.seal_options) == [None, None]
    assert "verified  0 events" in audit(
        "verify", "--database-url", log.url, *log.seal_options, "--from-last-seal"
    ).output  # fmt: skip


@pytest.mark.promise("failures", "Every seal over events that a restore lost stays a finding of the audit")
def test_a_seal_of_what_a_restore_lost_stays_a_finding_however_far_the_log_grows(log: Log) -> None:
    log.execute(*RESTORED, NEW_ID)
    for _ in range(2):
        assert log.findings() == [None, None]
        assert log.findings(*log.seal_options) == [(46, Kind.CUT_TAIL)] * 2
        new, old = ids_of(log)
        for output in outputs(log, *log.seal_options):
            assert re.search(rf"the log became {new} after position 45, .* instead of {old}: 'the disk failed'", output)
        grow(log, 10)


def test_after_such_a_restore_a_new_file_of_seals_is_begun(log: Log) -> None:
    log.execute(*RESTORED, NEW_ID)
    before = log.seals.read_bytes()
    assert seal(log) == 1
    assert log.seals.read_bytes() == before
    log.seals.unlink()
    assert seal(log) == 0
    assert log.findings(*log.seal_options) == [None, None]


def test_without_a_new_id_a_restore_is_a_cut_tail_and_then_another_past(log: Log) -> None:
    log.execute(*RESTORED)
    assert log.findings(*log.seal_options) == [(46, Kind.CUT_TAIL)] * 2
    grow(log, 10)
    assert log.findings(*log.seal_options) == [(LAST, Kind.SEAL)] * 2


def test_an_audit_for_the_old_id_reports_when_it_ended(log: Log) -> None:
    log.execute(NEW_ID)
    new, old = ids_of(log)
    assert log.findings("--log-id", new) == [None, None]
    assert log.findings("--log-id", old) == [(1, Kind.FOREIGN)] * 2
    for output in outputs(log, "--log-id", old):
        assert f"{new}, not {old}, which it was until it became {new} after position {LAST}, " in output


@pytest.mark.parametrize(
    ("statement", "position", "kind"),
    [
        pytest.param("delete from log_ids where number = 1", 1, Kind.CHANGED, id="first forgotten"),
        pytest.param("delete from log_ids where number = 2", 0, Kind.HEAD, id="last forgotten"),
        pytest.param("delete from log_ids", 1, Kind.CHANGED, id="all forgotten"),
        pytest.param("update log_ids set replaces = gen_random_uuid() where number = 1", 1, Kind.CHANGED,
                     id="another first id"),
        pytest.param("update log_ids set replaces = gen_random_uuid() where number = 2", 0, Kind.HEAD,
                     id="another id between"),
        pytest.param("update log_ids set log_id = gen_random_uuid() where number = 2", 0, Kind.HEAD,
                     id="another last id"),
        pytest.param("update log_ids set number = 3 where number = 1", 0, Kind.HEAD, id="changed places"),
        pytest.param("update log_head set log_id = gen_random_uuid()", 0, Kind.HEAD, id="another id in the head"),
        pytest.param("update log_ids set position = 10 where number = 2", 0, Kind.HEAD, id="out of order"),
        pytest.param("update log_ids set position = 1000 where number = 2", 67, Kind.CUT_TAIL, id="beyond the head"),
    ],
)  # fmt: skip
def test_a_list_of_ids_that_was_tampered_with_is_found(log: Log, statement: str, position: int, kind: Kind) -> None:
    log.execute(NEW_ID)
    grow(log, 2)
    log.execute(NEW_ID, statement)
    assert log.findings() == [(position, kind)] * 2


def test_a_position_that_does_not_fit_a_seal_of_the_new_id_is_found(log: Log) -> None:
    log.execute(NEW_ID)
    assert seal(log) == 0
    grow(log, 2)
    log.execute("update log_ids set position = 63")
    assert log.findings(*log.seal_options) == [(LAST, Kind.SEAL)] * 2


def test_a_reason_cannot_forge_a_verdict(disposable: Log) -> None:
    disposable.execute(
        "alter table log_ids drop constraint log_ids_reason_check",
        "select give_new_log_id(e'x\\nseals     9 agree\\x1b[2J')",
    )
    for output in outputs(disposable):
        assert ": 'x\\nseals     9 agree\\x1b[2J'\n" in output


def test_the_export_begins_at_the_first_id(log: Log) -> None:
    before = audit("export", "--database-url", log.url, "--to", 1).output
    log.execute(NEW_ID)
    assert audit("export", "--database-url", log.url, "--to", 1).output == before
