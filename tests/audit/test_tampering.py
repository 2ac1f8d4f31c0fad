"""A superuser tampers with a copy of the log, in every way we could think of; both verifiers find it."""

from __future__ import annotations

import pytest

from cli.auditing.finding import Kind
from tests.audit.evidence import Log
from tests.audit.tampering import HEAD_FOLLOWS, LAST, SWAP_HASHES, forge, rehash, rehash_one, shift, swap

CHANGES = {
    "stream_id": "'order-999'",
    "version": "version + 7",
    "event_id": "gen_random_uuid()",
    "event_type": "'OrderCancelled'",
    "schema_version": "schema_version + 1",
    "data": """replace(data::text, 'quantity": ', 'quantity": 1')::json""",
    "metadata": "(metadata::text || ' ')::json",
    "occurred_at": "occurred_at - interval '1 microsecond'",
    "recorded_at": "recorded_at + interval '1 microsecond'",
}


def test_both_verifiers_find_the_untouched_log_intact(untouched: Log) -> None:
    assert untouched.findings() == [None, None]
    assert untouched.findings(*untouched.seal_options) == [None, None]


@pytest.mark.parametrize("column", CHANGES)
def test_a_changed_field_is_found_and_the_first_of_them_named(log: Log, column: str) -> None:
    for position in (LAST, 17, 1):
        log.execute(f"update events set {column} = {CHANGES[column]} where position = {position}")
        assert log.findings() == [(position, Kind.CHANGED)] * 2


@pytest.mark.parametrize(
    ("statements", "position", "kind"),
    [
        pytest.param(["update events set hash = set_byte(hash, 31, 255 - get_byte(hash, 31)) where position = 17"],
                     17, Kind.REHASHED, id="changed hash"),
        pytest.param(["update events set hash = sha256('') where position = 60"], LAST, Kind.REHASHED,
                     id="changed hash of the last event"),
        pytest.param(["update events set data = '{}' where position in (17, 18)"], 17, Kind.BROKEN,
                     id="two neighbours changed"),
        # The event after it shows: it was not recorded after this one.
        pytest.param(["update events set data = '{}' where position = 17", rehash_one(17)], 18, Kind.CHANGED,
                     id="changed with a new hash"),
        pytest.param(["delete from events where position = 17"], 17, Kind.MISSING, id="deleted"),
        pytest.param(["delete from events where position between 17 and 40"], 17, Kind.MISSING, id="many deleted"),
        pytest.param(["delete from events where position = 1"], 1, Kind.MISSING, id="first deleted"),
        pytest.param(["update events set position = 9223372036854775807 where position = 17"], 17, Kind.MISSING,
                     id="moved to the end of all numbers"),
        pytest.param(["delete from events where position = 17", *shift(18, -1)], 17, Kind.REMOVED,
                     id="deleted and renumbered"),
        pytest.param(["delete from events where position between 17 and 19", *shift(20, -3), HEAD_FOLLOWS], 17,
                     Kind.REMOVED, id="three deleted, renumbered, head moved"),
        pytest.param(["delete from events where position = 59", *shift(60, -1)], 59, Kind.REMOVED,
                     id="last but one deleted and renumbered"),
        pytest.param(swap(20, 21), 20, Kind.REORDERED, id="neighbours swapped"),
        pytest.param(swap(20, 45), 20, Kind.REORDERED, id="distant events swapped"),
        pytest.param(swap(59, 60), 59, Kind.REORDERED, id="last two swapped"),
        pytest.param([*swap(20, 45), SWAP_HASHES.format(20, 45)], 20, Kind.REORDERED, id="swapped without hashes"),
        pytest.param(["update events set position = -20 where position = 20",
                      "update events set position = position - 101 where position between 21 and 30",
                      "update events set position = position + 100 where position < -50",
                      "update events set position = 30 where position = -20"], 20, Kind.REORDERED,
                     id="moved to later"),
        pytest.param([*shift(17, 1), forge(17)], 17, Kind.INSERTED, id="inserted"),
        pytest.param([*shift(17, 1), forge(17), rehash_one(17)], 17, Kind.INSERTED, id="inserted with its hash"),
        pytest.param([*shift(17, 2), forge(17), forge(18, version=2), HEAD_FOLLOWS], 17, Kind.INSERTED,
                     id="two inserted, head moved"),
        pytest.param([*shift(17, 2), forge(17), rehash_one(17), forge(18, version=2), rehash_one(18)], 17,
                     Kind.INSERTED, id="two inserted with their hashes"),
        pytest.param(["update events set position = -5 where position = 60"], -5, Kind.INSERTED,
                     id="moved before the beginning"),
        pytest.param([forge(61), rehash_one(61)], 61, Kind.HEAD, id="appended past the head"),
        pytest.param(["delete from events where position > 50"], 51, Kind.CUT_TAIL, id="cut tail"),
        pytest.param(["delete from events"], 1, Kind.CUT_TAIL, id="all deleted"),
        pytest.param(["update log_head set position = 50"], 51, Kind.HEAD, id="head set back"),
        pytest.param(["update log_head set position = 70"], 61, Kind.CUT_TAIL, id="head set forward"),
        pytest.param(["update log_head set hash = sha256('')"], LAST, Kind.HEAD, id="hash of the head"),
        pytest.param(["update log_head set recorded_at = now() + interval '1 day'"], LAST, Kind.HEAD,
                     id="time of the head"),
        pytest.param(["delete from log_head"], 0, Kind.HEAD, id="no head"),
        pytest.param(["update log_head set log_id = gen_random_uuid()"], 1, Kind.CHANGED, id="another log id"),
        pytest.param(["update events set recorded_at = recorded_at - interval '1 day' where position = 17", rehash(17),
                      HEAD_FOLLOWS], 17, Kind.TIME, id="time goes back, all rehashed"),
        pytest.param(["update events set version = 9 where position = 18", rehash(18), HEAD_FOLLOWS], 18, Kind.VERSION,
                     id="version gap, all rehashed"),
    ],
)  # fmt: skip
def test_tampering_is_found_in_the_chain(log: Log, statements: list[str], position: int, kind: Kind) -> None:
    log.execute(*statements)
    assert log.findings() == [(position, kind)] * 2


def test_an_emptied_field_is_found(disposable: Log) -> None:
    for column in ("data", "version", "recorded_at"):
        disposable.execute(
            f"alter table events alter {column} drop not null",
            f"update events set {column} = null where position = 17",
        )
        assert disposable.findings() == [(17, Kind.CHANGED)] * 2


def test_an_event_that_is_there_twice_is_found(disposable: Log) -> None:
    disposable.execute(
        "alter table events drop constraint events_pkey, drop constraint events_event_id_key,"
        " drop constraint events_stream_id_version_key",
        "insert into events select * from events where position = 17",
    )
    assert disposable.findings() == [(17, Kind.DUPLICATE)] * 2


@pytest.mark.parametrize(
    ("statements", "position", "kind"),
    [
        pytest.param(["delete from events where position > 50", HEAD_FOLLOWS], 51, Kind.CUT_TAIL,
                     id="cut tail, head rewritten"),
        pytest.param(["update events set data = '{}'", rehash(1), HEAD_FOLLOWS], 30, Kind.SEAL,
                     id="all of history rewritten"),
        pytest.param(["update events set data = '{}' where position = 44", rehash(44), HEAD_FOLLOWS], LAST, Kind.SEAL,
                     id="history rewritten after the first seal"),
        pytest.param(["update log_head set log_id = gen_random_uuid()", rehash(1), HEAD_FOLLOWS], 1, Kind.FOREIGN,
                     id="all of history rewritten under another log id"),
    ],
)  # fmt: skip
def test_what_the_chain_cannot_show_contradicts_a_seal(
    log: Log, statements: list[str], position: int, kind: Kind
) -> None:
    log.execute(*statements)
    assert log.findings() == [None, None]
    assert log.findings(*log.seal_options) == [(position, kind)] * 2


def test_a_seal_tells_that_only_the_log_id_was_changed(log: Log) -> None:
    log.execute("update log_head set log_id = gen_random_uuid()")
    assert log.findings(*log.seal_options) == [(1, Kind.FOREIGN)] * 2


def test_a_change_after_the_last_agreeing_seal_is_pinned_down_by_the_chain(log: Log) -> None:
    log.execute("update events set data = '{}' where position = 44")
    assert log.findings(*log.seal_options) == [(44, Kind.CHANGED)] * 2


def test_the_auditor_may_know_the_log_by_its_id(untouched: Log) -> None:
    other = "00000000-0000-4000-8000-000000000000"
    assert untouched.findings("--log-id", other) == [(1, Kind.FOREIGN)] * 2
