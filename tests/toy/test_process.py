"""A new process of a new aggregate, with a gateway of its own, run end to end by its registration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import httpx
import pytest

from command_service.processes import app as process_app
from command_service.processes.runner import ProcessRunner
from shared.http.operations import NotReady
from shared.settings import Settings
from tests.given_when_then import problem
from tests.roles import settings_of
from tests.running import clients_of, eventually, running_stack
from tests.toy.gateways.bank import AskBonus, BonusDenied, BonusGranted
from tests.toy.registered import toy_registered
from tests.toy.test_end_to_end import TABLES


class Bank:
    """Answers once it is open. What it is asked for with `defect` set, it cannot answer."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.defect = False
        self.outcomes: dict[str, Any] = {}

    async def carry_out(self, effect_id: str, effect: AskBonus) -> BonusGranted | BonusDenied:
        await self.open.wait()
        if self.defect:
            raise KeyError(effect_id)
        outcome = BonusGranted(effect.amount // 10) if effect.amount >= 100 else BonusDenied()
        return self.outcomes.setdefault(effect_id, outcome)  # type: ignore[no-any-return] # of either type

    async def outcome_of(self, effect_id: str) -> BonusGranted | BonusDenied | None:
        return self.outcomes.get(effect_id)


class Wallets:
    """A running stack with wallets, and a runner of their processes."""

    def __init__(self, commands: httpx.AsyncClient, queries: httpx.AsyncClient) -> None:
        self.commands = commands
        self.queries = queries
        self.bank = Bank()

    async def deposit(self, wallet_id: str, amount: int) -> None:
        body = {"owner_id": "ann", "amount": amount, "note": "salary"}
        answer = await self.commands.post(f"/wallets/{wallet_id}/deposits", json=body)
        assert answer.status_code == 200, answer.text

    async def until(self, wallet_id: str, **expected: Any) -> dict[str, Any]:
        """The process of the wallet, once its document says so."""
        found: dict[str, Any] = {}

        async def is_shown() -> bool:
            found.update((await self.queries.get(f"/processes/bonus-{wallet_id}")).json())
            return found.items() >= expected.items()

        await eventually(is_shown, 30)
        return found

    async def balance(self, wallet_id: str) -> int:
        return int((await self.queries.get(f"/wallets/{wallet_id}")).json()["balance"])


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with toy_registered():
        yield


@pytest.fixture
async def wallets(settings: Settings, connection: asyncpg.Connection[asyncpg.Record]) -> AsyncIterator[Wallets]:
    async with connection.transaction():
        await connection.execute(TABLES.read_text("utf-8"))
    of_runner = settings_of(settings, "orders_command").model_copy(update={"fulfilment": "orchestrated"})
    async with running_stack(settings), clients_of(settings) as clients:
        wallets = Wallets(*clients)
        async with process_app.running(of_runner, {AskBonus: wallets.bank}) as runner:
            await eventually(lambda: _is_ready(runner))
            yield wallets


async def _is_ready(runner: ProcessRunner) -> bool:
    try:
        await runner.ready()
    except NotReady:
        return False
    return True


@pytest.mark.promise("processes", "A new process is a module and a line in the registry, and needs no change elsewhere")
async def test_a_registered_process_runs_is_shown_and_can_be_compensated(wallets: Wallets) -> None:
    await wallets.deposit("savings", 500)
    waiting = await wallets.until("savings", state="running")
    assert [one["effect"] for one in waiting["effects"].values()] == ["AskBonus"]

    wallets.bank.open.set()
    given = await wallets.until("savings", effects={})
    assert await wallets.balance("savings") == 550
    assert (given["state"], list(given["timers"])) == ("running", ["trial"])

    assert (await wallets.commands.post("/processes/bonus-savings/compensate")).status_code == 200
    await wallets.until("savings", state="ended", outcome="taken back")
    assert await wallets.balance("savings") == 500


async def test_a_step_of_a_registered_process_can_be_skipped(wallets: Wallets) -> None:
    wallets.bank.defect = True
    wallets.bank.open.set()
    await wallets.deposit("purse", 70)
    stuck = await wallets.until("purse", state="stuck")
    assert "KeyError" in stuck["stuck"]

    refused = await wallets.commands.post("/processes/bonus-purse/skip", json={"outcome": "Refunded"})
    assert problem(refused, 422, "outcome-not-offered")["offered"] == ["BonusGranted", "BonusDenied"]
    skipped = await wallets.commands.post("/processes/bonus-purse/skip", json={"outcome": "BonusDenied"})

    assert skipped.status_code == 200, skipped.text
    await wallets.until("purse", state="ended", outcome="denied")
    assert await wallets.balance("purse") == 70
