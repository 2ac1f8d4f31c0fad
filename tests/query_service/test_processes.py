"""GET /processes: which processes there are, what they wait for, and since when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from shared.aggregates.process import (
    CompensationRequested,
    EffectAnswered,
    EffectRequested,
    ProcessEnded,
    ProcessEvent,
    ProcessRetried,
    ProcessStarted,
    ProcessStuck,
    StepSkipped,
    TimerCancelled,
    TimerFired,
    TimerSet,
)
from tests.given_when_then import problem
from tests.independent_folds import assert_read_models_equal_the_log
from tests.recording import Connection, put_in_log
from tests.running import clients_of, fresh_database, running_stack, settings_for

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
DUE = NOON + timedelta(hours=1)
LONG = "x" * 64  # as long as the id of an order may be
ASKED = EffectRequested("e-1", "Authorise", {"amount": 1, "currency": "GBP"})


class Processes:
    def __init__(self, connection: Connection, queries: httpx.AsyncClient) -> None:
        self._connection = connection
        self.queries = queries
        self._token = ""

    async def begin(self, kind: str, subject_id: str, *events: ProcessEvent, minutes: int = 0) -> str:
        process_id = f"{kind}-{subject_id}"
        life = [ProcessStarted(kind, subject_id, 1), *events]
        at = NOON + timedelta(minutes=minutes)
        result = await put_in_log(self._connection, f"process-{process_id}", *life, at=at)
        self._token = result.token.encode()
        return process_id

    async def get(self, path: str, **parameters: str) -> Any:
        """The answer that shows all of them."""
        headers = {"Consistency-Token": self._token, "Prefer": "wait=20"}
        answer = await self.queries.get(path, params=parameters, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ids(self, **parameters: str) -> list[str]:
        return [one["process_id"] for one in (await self.get("/processes", **parameters))["processes"]]


@pytest_asyncio.fixture
async def processes(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> AsyncIterator[Processes]:
    async with fresh_database(postgres.url) as database_url:
        settings = settings_for(database_url, valkey.url)
        connection = await asyncpg.connect(database_url)
        async with running_stack(settings), clients_of(settings) as (_, queries):
            yield Processes(connection, queries)
            await assert_read_models_equal_the_log(database_url, valkey.url, read_models=["processes"])
        await connection.close()


@pytest.mark.promise("processes", "Operators list processes by kind, state and age, and see what each waits for")
async def test_processes_are_listed_by_kind_state_and_age(processes: Processes) -> None:
    old = await processes.begin("fulfilment", LONG, ASKED, TimerSet("payment", DUE))
    stuck = await processes.begin("fulfilment", "2", ASKED, ProcessStuck("KeyError"), minutes=1)
    ended = await processes.begin("fulfilment", "3", ProcessEnded("cancelled"), minutes=2)
    other = await processes.begin("order_payment", "4", minutes=3)

    assert await processes.ids() == [other, ended, stuck, old]
    assert await processes.ids(kind="fulfilment") == [ended, stuck, old]
    assert await processes.ids(state="running") == [other, old]
    assert await processes.ids(kind="fulfilment", state="stuck") == [stuck]
    assert await processes.ids(state="running", started_before="2026-01-31T12:03:00Z") == [old]
    assert await processes.ids(kind="no_such") == []
    first = await processes.get("/processes", limit="3")
    assert [one["waits_for"] for one in first["processes"]] == [[], [], ["Authorise"]]
    last = await processes.get("/processes", limit="3", cursor=first["next_cursor"])
    assert ([one["process_id"] for one in last["processes"]], last["next_cursor"]) == ([old], None)
    assert (last["processes"][0]["waits_for"], last["processes"][0]["next_due_at"]) == (
        ["Authorise", "payment"],
        "2026-01-31T13:00:00Z",
    )


async def test_one_process_shows_what_it_waits_for_now_and_did_before(processes: Processes) -> None:
    process_id = await processes.begin("fulfilment", LONG, ASKED, TimerSet("payment", DUE), ProcessStuck("KeyError"))

    now = await processes.get(f"/processes/{process_id}")
    then = await processes.get(f"/processes/{process_id}", as_of="2026-01-31T12:30:00Z")
    history = await processes.get(f"/processes/{process_id}/history")

    assert now == then
    assert (now["state"], now["stuck"], now["stuck_since"]) == ("stuck", "KeyError", "2026-01-31T12:00:00Z")
    assert now["effects"] == {"e-1": {"effect": "Authorise", "since": "2026-01-31T12:00:00Z"}}
    assert now["timers"] == {"payment": "2026-01-31T13:00:00Z"}
    assert len(history["events"]) == now["version"] == 4


async def test_the_read_model_follows_every_event_of_a_process(processes: Processes) -> None:
    answered = EffectAnswered("e-1", "Authorised", {})
    skipped = StepSkipped("e-2", "Capture", {}, "Captured", {})
    timers = TimerSet("payment", DUE), TimerSet("review", DUE), TimerSet("track", DUE)
    life: list[ProcessEvent]
    life = [ASKED, *timers, answered, TimerCancelled("payment"), TimerFired("review"), ProcessStuck("KeyError")]
    await processes.begin("fulfilment", "1", *life, ProcessRetried({}), skipped)
    await processes.begin("fulfilment", "2", *life, CompensationRequested({}))
    await processes.begin("fulfilment", "3", *life, CompensationRequested({}), ProcessEnded("cancelled"))

    shown = [await processes.get(f"/processes/fulfilment-{number}") for number in (1, 2, 3)]

    assert [(one["state"], list(one["timers"])) for one in shown] == [
        ("running", ["track"]),
        ("running", ["track"]),
        ("ended", []),
    ]


async def test_what_cannot_be_asked_is_refused(processes: Processes) -> None:
    for query in ("state=lost", "kind=A-B", "limit=101", "started_before=now"):
        problem(await processes.queries.get(f"/processes?{query}"), 422, "invalid-request")
    problem(await processes.queries.get("/processes?cursor=!"), 400, "malformed-cursor")
    await processes.begin("fulfilment", "1")
    await processes.get("/processes")
    problem(await processes.queries.get("/processes/fulfilment-2"), 404, "process-not-found")
