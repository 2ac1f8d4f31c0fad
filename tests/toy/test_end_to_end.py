"""A new aggregate and two new read models, each folded from several streams, run end to end by their registration."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from cli.history.timeline import open_timeline
from cli.history.what_if import fold_history
from cli.projection_admin.admin import open_admin
from projector.projection import RecordedEvent
from projector.projections import PROJECTIONS
from query_service.point_in_time import PointInTime
from shared.eventstore.snapshots import Snapshots, compact
from shared.eventstore.store import PostgresEventStore
from shared.settings import Settings
from tests.given_when_then import problem
from tests.recording import put_in_log, put_raw_in_log
from tests.roles import settings_of
from tests.running import clients_of, eventually, running_stack
from tests.toy.aggregates.wallet import WALLET, WalletChanged
from tests.toy.registered import toy_registered

TABLES = Path(__file__).parent / "migrations" / "0100_wealth.sql"
READ_MODELS = ("owners", "wealth")
MORNING, NOON = "2026-01-31T09:00:00Z", "2026-01-31T12:00:00Z"


class Wallets:
    """A running stack with wallets. What is noted on a change of `refused` cannot be applied by the projections."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.refused: set[str] = set()
        self.commands: httpx.AsyncClient
        self.queries: httpx.AsyncClient
        self.token = ""  # of the last acknowledgement

    def refuse(self, name: str) -> None:
        """The projection of that name raises on what is noted in `refused`."""
        one = PROJECTIONS[name]
        apply = one.projection.apply

        def apply_or_raise(owner_id: str, document: Any, recorded: RecordedEvent[Any]) -> Any:
            if recorded.event.note in self.refused:
                raise ValueError("indigestible")
            return apply(owner_id, document, recorded)

        PROJECTIONS[name] = one._replace(projection=replace(one.projection, apply=apply_or_raise))

    async def deposit(self, wallet_id: str, owner_id: str, amount: int, **more: str) -> httpx.Response:
        body = {"owner_id": owner_id, "amount": amount, "note": "salary", **more}
        return self._acknowledged(await self.commands.post(f"/wallets/{wallet_id}/deposits", json=body))

    async def transfer(self, wallet_id: str, to: str, amount: int, **more: str) -> httpx.Response:
        body = {"to": to, "amount": amount, "note": "rent", **more}
        return self._acknowledged(await self.commands.post(f"/wallets/{wallet_id}/transfers", json=body))

    def _acknowledged(self, answer: httpx.Response) -> httpx.Response:
        self.token = answer.headers.get("consistency-token", self.token)
        return answer

    async def get(self, path: str) -> Any:
        """The answer that shows all that was acknowledged."""
        headers = {"Consistency-Token": self.token, "Prefer": "wait=20"}
        answer = await self.queries.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def status(self, name: str) -> dict[str, Any]:
        found = (await self.queries.get("/projections")).json()["projections"]
        return next(one for one in found if one["name"] == name)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    changes = {
        "snapshot_every_events": 2,
        "projector_on_poison": "park",
        "projector_partitions": "owners=2,wealth=2",
    }
    return Settings.model_validate({**settings.model_dump(), **changes})


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with toy_registered():
        yield


@pytest.fixture
async def wallets(settings: Settings, connection: asyncpg.Connection[asyncpg.Record]) -> AsyncIterator[Wallets]:
    async with connection.transaction():
        await connection.execute(TABLES.read_text("utf-8"))
    toy = Wallets(settings)
    for name in READ_MODELS:
        toy.refuse(name)
    async with running_stack(settings), clients_of(settings) as (toy.commands, toy.queries):
        yield toy


@pytest.mark.promise("read-models", "A new aggregate and read models of several streams need no change elsewhere")
async def test_commands_are_decided_projected_and_queried_with_their_token(wallets: Wallets) -> None:
    first = await wallets.deposit("savings", "ann", 500)
    await wallets.deposit("purse", "ann", 70)
    await wallets.deposit("piggy-bank", "bob", 30)
    assert (first.status_code, first.json()["aggregate_id"]) == (200, "savings")

    ann = await wallets.get("/owners/ann")
    assert (ann["wallets"], ann["total"], ann["version"]) == ({"savings": 500, "purse": 70}, 570, 2)
    assert await wallets.get("/wealth") == [
        {"wallets": "1", "owners": 1, "total": 30},
        {"wallets": "2", "owners": 1, "total": 570},
    ]
    assert (await wallets.get("/wealth/ann"))["wallets"] == ["purse", "savings"]
    assert {owner["owner_id"]: owner["total"] for owner in await wallets.get("/owners")} == {"ann": 570, "bob": 30}
    problem(await wallets.queries.get("/owners/carol"), 404, "owner-not-found")


async def test_a_command_over_two_streams_changes_both_or_neither(wallets: Wallets) -> None:
    await wallets.deposit("savings", "ann", 500)
    await wallets.deposit("piggy-bank", "bob", 30)

    problem(await wallets.transfer("savings", "piggy-bank", 501), 409, "too-little-in-wallet")
    moved = await wallets.transfer("savings", "piggy-bank", 200)

    assert (moved.json()["aggregate_id"], moved.json()["version"], moved.json()["position"]) == ("savings", 2, 4)
    assert (await wallets.get("/owners/ann"))["wallets"] == {"savings": 300}
    assert (await wallets.get("/owners/bob"))["wallets"] == {"piggy-bank": 230}
    assert await wallets.get("/wealth") == [{"wallets": "1", "owners": 2, "total": 530}]


async def test_history_and_time_travel_follow_from_the_registry(wallets: Wallets) -> None:
    await wallets.deposit("savings", "ann", 500, occurred_at=MORNING)
    await wallets.deposit("savings", "ann", 50, occurred_at=NOON)

    history = await wallets.get("/wallets/savings/history")
    then = await wallets.get("/wallets/savings?as_of=2026-01-31T10:00:00Z")
    now = await wallets.get("/wallets/savings")

    assert [(event["version"], event["data"]["by"]) for event in history["events"]] == [(1, 500), (2, 50)]
    savings = {"wallet_id": "savings", "owner_id": "ann"}
    assert then == savings | {"balance": 500, "changes": 1, "last_event_at": MORNING, "version": 1}
    assert now == savings | {"balance": 550, "changes": 2, "last_event_at": NOON, "version": 2}


async def test_a_snapshot_is_saved_and_decided_on(
    wallets: Wallets, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    for _ in range(4):
        await wallets.deposit("savings", "ann", 100)

    async def saved() -> bool:
        return bool(await connection.fetchval("select count(*) from snapshots where stream_id = 'wallet-savings'"))

    await eventually(saved)
    async with asyncpg.create_pool(wallets.settings.database_url.get_secret_value(), min_size=1) as pool:
        assert wallets.settings.snapshot_key is not None
        key = wallets.settings.snapshot_key.get_secret_value().encode()
        loaded = await Snapshots(PostgresEventStore(pool), key).load(WALLET, "wallet-savings")
    assert (loaded.state.balance, loaded.version, loaded.snapshot_version > 0) == (400, 4, True)
    assert (await wallets.transfer("savings", "purse", 400)).status_code == 200
    problem(await wallets.transfer("savings", "purse", 1), 409, "too-little-in-wallet")


@pytest.mark.parametrize("name", READ_MODELS)
async def test_a_read_model_is_rebuilt_beside_the_live_one_and_verified(wallets: Wallets, name: str) -> None:
    for number in range(20):
        await wallets.deposit(f"wallet-{number}", f"owner-{number % 7}", number + 1)
    before = await wallets.get(f"/{name}/owner-3")

    async with open_admin(settings_of(wallets.settings, "orders_projector"), PROJECTIONS[name]) as admin:
        await admin.verify()
        await admin.rebuild()
        await admin.verify()

    status = await wallets.status(name)
    assert (status["generation"], len(status["partitions"])) == (2, 2)
    assert await wallets.get(f"/{name}/owner-3") == before
    await wallets.deposit("wallet-3", "owner-3", 1_000)
    assert (await wallets.get(f"/{name}/owner-3"))["total"] == before["total"] + 1_000


@pytest.mark.parametrize("name", READ_MODELS)
async def test_a_poison_event_parks_its_document_until_it_is_retried(wallets: Wallets, name: str) -> None:
    wallets.refused.add("counterfeit")
    await wallets.deposit("savings", "ann", 500)
    await wallets.deposit("savings", "ann", 20, note="counterfeit")
    await wallets.deposit("purse", "ann", 3)  # waits with the document, though of another stream
    await wallets.deposit("piggy-bank", "bob", 30)

    async def parked() -> bool:
        return [event["waiting"] for event in (await wallets.status(name))["parked_events"]] == [1]

    await eventually(parked)
    assert (await wallets.get(f"/{name}/bob"))["total"] == 30
    ann = await wallets.queries.get(f"/{name}/ann")
    assert (ann.json()["total"], ann.headers["projection-parked"]) == (500, "2")
    held_back = {"Consistency-Token": wallets.token, "Prefer": "wait=20"}
    problem(await wallets.queries.get(f"/{name}/ann", headers=held_back), 503, "projection-parked")
    status = await wallets.status(name)
    (event,) = status["parked_events"]
    assert (status["parked"], event["document_id"], event["stream_id"]) == (1, "ann", "wallet-savings")
    assert event["position"] == 2

    wallets.refused.clear()
    async with open_admin(settings_of(wallets.settings, "orders_projector"), PROJECTIONS[name]) as admin:
        for store in await admin.live_stores():
            await store.ask_retry("ann")

    async def retried() -> bool:
        return bool((await wallets.status(name))["parked"] == 0)

    await eventually(retried)
    assert (await wallets.get(f"/{name}/ann"))["total"] == 523


async def test_an_older_version_of_an_event_is_upcast_on_both_sides(
    wallets: Wallets, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await put_raw_in_log(connection, "wallet-savings", "WalletChanged", 1, '{"owner_id":"ann","by":40}')

    await wallets.deposit("savings", "bob", 2)

    assert (await wallets.get("/owners/ann"))["wallets"] == {"savings": 42}
    assert (await wallets.get("/wallets/savings"))["balance"] == 42


async def test_the_command_line_shows_a_wallet_and_folds_a_function_over_it(
    connection: asyncpg.Connection[asyncpg.Record], database_url: str
) -> None:
    stream_id = WALLET.stream_of("savings")
    await put_in_log(connection, stream_id, WalletChanged("ann", 500, ""), WalletChanged("ann", -20, "rent"))

    async with open_timeline(database_url, [stream_id], PointInTime()) as timeline:
        assert timeline is not None
        shown = str(timeline), [entry.after["balance"] async for entry in timeline.entries]
    total = await fold_history(database_url, lambda total, past: (total or 0) + past.event.by)

    assert shown == ("Wallet savings", [500, 480])
    assert total == 480


async def test_the_compactor_saves_snapshots_of_wallets(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    stream_id = WALLET.stream_of("savings")
    await put_in_log(connection, stream_id, *[WalletChanged("ann", 10, "")] * 3)
    snapshots = Snapshots(PostgresEventStore(connection), b"a key of 16 bytes")

    assert await compact(connection, snapshots, every_events=3) == 1

    loaded = await snapshots.load(WALLET, stream_id)
    assert (loaded.state.balance, loaded.snapshot_version) == (30, 3)


async def test_lag_and_status_are_reported(wallets: Wallets) -> None:
    await wallets.deposit("savings", "ann", 500)
    for name in READ_MODELS:
        await wallets.get(f"/{name}/ann")

        async def is_current(name: str = name) -> bool:
            return (await wallets.queries.get(f"/{name}/ann")).headers["projection-lag"] == "0"

        await eventually(is_current)

        async def is_active(name: str = name) -> bool:
            return bool((await wallets.status(name))["projector_state"] == "active")

        await eventually(is_active)
        status = await wallets.status(name)
        assert (status["checkpoint"], status["position_lag"], status["level"]) == (1, 0, "normal")
