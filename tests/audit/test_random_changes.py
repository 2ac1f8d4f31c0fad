"""Whatever field of whatever event is changed, both verifiers name that event."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.audit.evidence import Connection, Log
from tests.audit.tampering import LAST
from tests.effort import examples

TEXTS = ("stream_id", "event_type", "data", "metadata")
NUMBERS = {
    "version": "version + {}",
    "schema_version": "schema_version + {}",
    "occurred_at": "occurred_at + {} * interval '1 microsecond'",
    "recorded_at": "recorded_at - {} * interval '1 microsecond'",
}
BYTES = {
    "hash": "set_byte(hash, {0}, get_byte(hash, {0}) # {1})",
    "event_id": "encode(set_byte(uuid_send(event_id), {0} % 16, get_byte(uuid_send(event_id), {0} % 16) # {1}), 'hex')"
    "::uuid",
}


@st.composite
def changes(draw: st.DrawFn) -> str:
    """An assignment that changes one field, if only a byte of it."""
    column = draw(st.sampled_from([*TEXTS, *NUMBERS, *BYTES]))
    if column in NUMBERS:
        return f"{column} = {NUMBERS[column].format(draw(st.integers(1, 1_000_000)))}"
    if column in BYTES:
        return f"{column} = {BYTES[column].format(draw(st.integers(0, 31)), draw(st.integers(1, 255)))}"
    kind = "json" if column in ("data", "metadata") else "text"
    # The first letter outside the syntax of JSON, so that it stays JSON; or a space that JSON does not care for.
    changed = draw(
        st.sampled_from(
            [
                f"regexp_replace({column}::text, '[a-zA-Z]', '{draw(st.sampled_from('0123456789_é🍵'))}')",
                f"{column}::text || repeat(' ', {draw(st.integers(1, 3))})",
            ]
        )
    )
    return f"{column} = ({changed})::{kind}"


@pytest.mark.promise("event-log", "The audit finds any change of any event, at that event")
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(1, LAST), change=changes())
def test_any_change_of_any_event_is_found_at_that_event(disposable: Log, position: int, change: str) -> None:
    async def tamper(connection: Connection) -> None:
        # Else it would refuse some of the changes.
        for constraint in (
            "stream_id_version_key",
            "event_id_key",
            "stream_id_check",
            "event_type_check",
            "schema_version_check",
        ):
            await connection.execute(f"alter table events drop constraint if exists events_{constraint}")
        await connection.execute(f"create table original as select * from events where position = {position}")
        await connection.execute(f"update events set {change} where position = {position}")

    async def undo(connection: Connection) -> None:
        await connection.execute(f"delete from events where position = {position}")
        await connection.execute("insert into events select * from original")
        await connection.execute("drop table original")

    disposable.change(tamper)
    try:
        found = disposable.findings()
        assert [finding and finding[0] for finding in found] == [position, position], found
        assert found[0] == found[1]
    finally:
        disposable.change(undo)
