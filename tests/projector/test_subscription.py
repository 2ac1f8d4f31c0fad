"""Reading the log once for all its consumers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import given as for_all
from hypothesis import settings as effort
from hypothesis import strategies as st

from shared.aggregates.order import OrderLine
from shared.eventstore import log as event_log
from shared.eventstore.subscription import LogSession, open_session
from shared.settings import Settings
from tests.effort import examples
from tests.orders import new_order_id, placed
from tests.projector.fresh_log import FreshLog
from tests.projector.histories import later, placings, stored
from tests.recording import Recorder
from tests.running import eventually


@for_all(data=st.data())
@effort(
    max_examples=examples(50),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_followers_at_any_pace_read_every_event_once_and_in_order(
    data: st.DataObject, fresh_log: FreshLog, session: LogSession
) -> None:
    await fresh_log.begin()
    session.invalidate()  # what it read of the log before
    followers: list[list[int]] = [[] for _ in range(3)]
    for _ in range(data.draw(st.integers(1, 20))):
        for _ in range(data.draw(st.integers(0, 4))):
            position = len(fresh_log.events) + 1
            event = data.draw(placings if position == 1 else later)
            await fresh_log.append(stored(event, "a", position, position))
        seen = data.draw(st.sampled_from(followers))
        events, more = await session.read(len(seen), data.draw(st.integers(1, 5)))
        assert events == fresh_log.events[len(seen) : len(seen) + len(events)]
        seen += [event.position for event in events]
        assert events or len(seen) == len(fresh_log.events), "what is there is read"
        assert more or len(seen) == len(fresh_log.events), "without more, all was read"

    for seen in followers:
        assert seen == [*range(1, len(seen) + 1)]


async def test_many_followers_cost_one_statement(
    projector_settings: Settings, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = 0
    read_page = event_log.read_page

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal statements
        statements += 1
        return await read_page(*arguments, **options)

    monkeypatch.setattr(event_log, "read_page", counted)
    for _ in range(5):
        await recorder.record(new_order_id(), placed())
    async with open_session(projector_settings, lambda: None) as session:
        batches = await asyncio.gather(*(session.read(0, 100) for _ in range(8)))

    assert statements == 1
    assert {len(batch.events) for batch in batches} == {5}


async def test_a_page_ends_with_the_event_that_reaches_its_bytes(
    projector_settings: Settings, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.eventstore.subscription.MAX_PAGE_BYTES", 1_000)
    for text in ("x" * 400, "é" * 400, "y" * 3_000, "z"):
        await recorder.record(new_order_id(), placed(OrderLine("MUG", 1, 1, text)))

    async with open_session(projector_settings, lambda: None) as session:
        pages = [await session.read(0, 100)]
        while pages[-1].events:
            pages.append(await session.read(pages[-1].events[-1].position, 100))

    assert [[event.position for event in page.events] for page in pages] == [[1, 2], [3], [4], []]
    assert [page.more for page in pages[:2]] == [True, True]


async def test_a_statement_that_takes_too_long_ends_the_session_for_all(
    projector_settings: Settings, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.eventstore.subscription.ANSWER_SECONDS", 0.1)
    async with open_session(projector_settings, lambda: None) as session, recorder.connection.transaction():
        await recorder.connection.execute("lock table events")
        with pytest.raises(TimeoutError):
            await session.read(0, 1)
        await eventually(lambda: session.lost)
