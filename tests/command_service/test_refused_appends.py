"""An append that PostgreSQL refused, or that was never sent: it is told from one whose outcome is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import asyncpg
import pytest

from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, AppendResult
from tests.command_service.test_group_commit import running_shop
from tests.given_when_then import problem


@pytest.mark.promise("commands", "An append that PostgreSQL refused is never reported as unknown")
async def test_an_append_that_gave_up_waiting_for_a_lock_has_done_nothing_and_says_so(database_url: str) -> None:
    name = urlsplit(database_url).path.removeprefix("/")
    async with running_shop(database_url) as shop:
        await shop.connection.execute(f"alter database {name} set lock_timeout = '100ms'")
        async with shop.log_locked():
            problem(await shop.place("1", key="key"), 503, "log-unavailable")
        answer = await shop.place("1", key="key")
        assert answer.status_code == 201
        assert "idempotent-replayed" not in answer.headers
        assert len(await shop.log()) == 1


@pytest.mark.promise("commands", "An append that PostgreSQL refused is never reported as unknown")
async def test_what_cannot_be_sent_is_told_as_a_defect_and_the_next_append_is_not_hurt(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send_nonsense(
        connection: asyncpg.Connection[asyncpg.Record], group: Sequence[AppendRequest]
    ) -> list[AppendResult]:
        await connection.fetch("select $1::integer", "nonsense")
        raise AssertionError(group)

    async with running_shop(database_url) as shop:
        assert (await shop.place()).status_code == 201
        monkeypatch.setattr(event_log, "append_group", send_nonsense)
        problem(await shop.place("1"), 500, "internal-error")
        monkeypatch.undo()
        assert (await shop.place("1")).status_code == 201
        assert (await shop.client.get("/readyz")).status_code == 200
