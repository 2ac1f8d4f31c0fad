"""Accounts end to end: random clients of two command services, and what the read model says in the end."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import pytest

from shared.settings import Settings
from tests.independent_folds import assert_read_models_equal_the_log
from tests.running import clients_of, free_ports, running_command_service

ACCOUNTS = [f"account-{number}" for number in range(6)]
COMMANDS = 300
CLIENTS = 12
DAYS = [f"2026-01-{number:02}T{hour:02}:00:00Z" for number in range(2, 12) for hour in (0, 8, 23)]


class Client:
    """Sends random commands, and repeats each under its key until it knows what became of it."""

    def __init__(self, services: list[httpx.AsyncClient], seed: int) -> None:
        self._services = services
        self._random = random.Random(seed)
        self._seed = seed
        self.external = 0  # what its deposits and withdrawals added
        self.refused: set[str] = set()

    async def send(self, commands: int) -> None:
        for number in range(commands):
            path, body, external = self._next()
            if at := self._random.choice([None, *DAYS]):
                body["occurred_at"] = at
            while True:
                service = self._random.choice(self._services)
                headers = {"Idempotency-Key": f"{self._seed}-{number}"}
                answer = await service.post(path, json=body, headers=headers)
                if answer.status_code == 200:
                    self.external += external
                    break
                code = answer.json()["code"]
                if code != "version-conflict":
                    assert answer.status_code in (409, 422), answer.text
                    self.refused.add(code)
                    break

    def _next(self) -> tuple[str, dict[str, Any], int]:
        source, target = self._random.choices(ACCOUNTS, k=2)
        amount = self._random.randint(1, 400)
        kind = self._random.choice(["deposits", "withdrawals", "transfers", "transfers", "interest"])
        if kind == "transfers":
            body = {"from_account_id": source, "to_account_id": target, "amount": amount, "reference": "r"}
            return "/transfers", body, 0
        if kind == "interest":
            first = self._random.randint(1, 3)
            period = {"from": f"2026-01-{first:02}", "to": f"2026-01-{first + 1:02}"}
            return f"/accounts/{source}/interest", {"annual_rate_bps": 50_000, **period}, 0
        change = amount if kind == "deposits" else -amount
        return f"/accounts/{source}/{kind}", {"amount": amount, "reference": "r"}, change


@pytest.mark.promise(
    "read-models", "The accounts read model holds exactly what was deposited, withdrawn and paid as interest"
)
async def test_the_balances_of_all_accounts_are_what_came_in_less_what_went_out(
    stack: Settings, database_url: str, redis_url: str
) -> None:
    [port] = free_ports(1)
    other = stack.model_copy(update={"command_port": port})
    async with (
        clients_of(stack) as (commands, queries),
        running_command_service(other) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as second,
    ):
        for number, account_id in enumerate(ACCOUNTS):
            body = {"account_id": account_id, "owner_id": "alice", "currency": "GBP", "overdraft_limit": 100 * number}
            opened = await commands.post("/accounts", json={**body, "occurred_at": "2026-01-01T00:00:00Z"})
            assert opened.status_code == 201, opened.text
        clients = [Client([commands, second], seed) for seed in range(CLIENTS)]
        await asyncio.gather(*(client.send(COMMANDS // CLIENTS) for client in clients))
        for account_id in ACCOUNTS:
            rest = {"annual_rate_bps": 50_000, "from": "2026-01-04", "to": "2026-02-01"}
            assert (await commands.post(f"/accounts/{account_id}/interest", json=rest)).status_code == 200

        await assert_read_models_equal_the_log(database_url, redis_url)
        shown = [(await queries.get(f"/accounts/{account_id}")).json() for account_id in ACCOUNTS]
        statements = [await _statement(queries, account_id) for account_id in ACCOUNTS]

    assert min(one["available"] for one in shown) >= 0
    for one, entries in zip(shown, statements, strict=True):
        assert all(entry["balance"] >= -one["overdraft_limit"] for entry in entries), "not even in between"
        assert sum(entry["amount"] for entry in entries) == one["balance"]
    interest = sum(
        entry["amount"] for entries in statements for entry in entries if entry["event_type"] == "InterestApplied"
    )
    assert sum(one["balance"] for one in shown) == sum(client.external for client in clients) + interest
    assert interest > 0
    assert "insufficient-funds" in set.union(*(client.refused for client in clients))


async def _statement(queries: httpx.AsyncClient, account_id: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    cursor = None
    while True:
        more: dict[str, str] = {"cursor": cursor} if cursor else {}
        page = (await queries.get(f"/accounts/{account_id}/statement", params={"limit": "7", **more})).json()
        entries += page["entries"]
        if (cursor := page["next_cursor"]) is None:
            return entries
