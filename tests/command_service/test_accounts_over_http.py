"""The commands on accounts over HTTP, and clients that race for the money of one account through two services."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import httpx
import pytest

from tests.given_when_then import problem
from tests.recording import Connection

JANUARY = "2026-01-{:02}T12:00:00Z"


async def open_account(
    commands: httpx.AsyncClient, account_id: str, *, balance: int = 0, at: str = JANUARY.format(1), **more: Any
) -> None:
    body = {"account_id": account_id, "owner_id": "alice", "currency": "GBP", "occurred_at": at, **more}
    opened = await commands.post("/accounts", json=body)
    assert opened.status_code == 201, opened.text
    if balance:
        answer = await commands.post(
            f"/accounts/{account_id}/deposits", json={"amount": balance, "reference": "first", "occurred_at": at}
        )
        assert answer.status_code == 200, answer.text


def entry(amount: int, number: int | None = None) -> dict[str, Any]:
    """A body; of that day of January, or of now."""
    body = {"amount": amount, "reference": "test"}
    return body if number is None else {**body, "occurred_at": JANUARY.format(number)}


def transfer(source: str, target: str, amount: int) -> dict[str, Any]:
    return {"from_account_id": source, "to_account_id": target, "amount": amount, "reference": "test"}


async def test_an_account_is_opened_under_its_address_once(commands: httpx.AsyncClient) -> None:
    body = {"account_id": "main", "owner_id": "alice", "currency": "GBP"}
    opened = await commands.post("/accounts", json=body)
    assert (opened.status_code, opened.json()["aggregate_id"], opened.json()["version"]) == (201, "main", 1)
    assert opened.headers["location"].endswith("/accounts/main")
    problem(await commands.post("/accounts", json=body), 409, "account-already-open")
    nameless = await commands.post("/accounts", json={"owner_id": "alice", "currency": "GBP"})
    assert nameless.headers["location"].endswith(nameless.json()["aggregate_id"])


async def test_every_refusal_has_its_code_and_its_data(commands: httpx.AsyncClient) -> None:
    await open_account(commands, "main", balance=100)
    await open_account(commands, "euros", currency="EUR")
    take, put = "/accounts/main/withdrawals", "/accounts/main/deposits"

    refused = problem(await commands.post(take, json=entry(101)), 409, "insufficient-funds")
    assert (refused["requested"], refused["available"], refused["currency_exponent"]) == (101, 100, 2)
    problem(await commands.post("/accounts/none/deposits", json=entry(1)), 404, "account-not-found")
    problem(await commands.post("/transfers", json=transfer("main", "none", 1)), 404, "account-not-found")
    problem(await commands.post("/transfers", json=transfer("main", "main", 1)), 422, "same-account")
    problem(await commands.post("/transfers", json=transfer("main", "euros", 1)), 409, "currency-mismatch")
    problem(await commands.post(put, json=entry(2**53 - 1)), 409, "balance-too-large")
    problem(
        await commands.post(put, json={**entry(1), "occurred_at": "2025-12-31T12:00:00Z"}), 409, "account-not-open-yet"
    )


async def test_interest_closes_its_days(commands: httpx.AsyncClient) -> None:
    await open_account(commands, "main", balance=1_000_000)
    path = "/accounts/main/interest"
    january = {"annual_rate_bps": 365, "from": "2026-01-01", "to": "2026-02-01"}

    assert (await commands.post(path, json=january)).status_code == 200
    refused = problem(await commands.post(path, json=january), 409, "day-closed")
    assert (refused["day"], refused["open_from"]) == ("2026-01-01", "2026-02-01")
    problem(await commands.post("/accounts/main/deposits", json=entry(1, 31)), 409, "day-closed")
    empty = {**january, "from": "2026-02-01"}
    problem(await commands.post(path, json=empty), 422, "interest-period-empty")
    unfinished = {**january, "from": "2026-02-01", "to": "2999-01-01"}
    problem(await commands.post(path, json=unfinished), 409, "interest-period-not-over")


async def test_a_malformed_period_is_refused(commands: httpx.AsyncClient) -> None:
    changes: list[dict[str, Any]] = [
        {"from": "yesterday"},
        {"from": 1},
        {"from": "2026-01-01T00:00:00Z"},
        {"annual_rate_bps": 1.5},
        {"more": 1},
    ]
    for change in changes:
        body = {"annual_rate_bps": 1, "from": "2026-01-01", "to": "2026-02-01", **change}
        problem(await commands.post("/accounts/main/interest", json=body), 422, "invalid-request")


async def test_a_repeated_transfer_with_its_key_moves_the_money_once(
    commands: httpx.AsyncClient, connection: Connection
) -> None:
    await open_account(commands, "main", balance=100)
    await open_account(commands, "savings")
    headers = {"Idempotency-Key": "once"}
    first, again = [
        await commands.post("/transfers", json=transfer("main", "savings", 60), headers=headers) for _ in range(2)
    ]
    assert (first.json(), first.json()["aggregate_id"]) == (again.json(), "main")
    assert await balance_in(connection, "savings") == 60


@pytest.mark.promise("commands", "The same transfer again, by its id, moves no more money")
async def test_a_transfer_that_is_sent_again_by_its_id_moves_the_money_once(
    commands: httpx.AsyncClient, other_commands: httpx.AsyncClient, connection: Connection
) -> None:
    await open_account(commands, "main", balance=100)
    await open_account(commands, "savings")
    body = {**transfer("main", "savings", 30), "transfer_id": "t-1"}
    services = itertools.islice(itertools.cycle([commands, other_commands]), 6)

    answers = await asyncio.gather(*(service.post("/transfers", json=body) for service in services))

    assert {answer.status_code for answer in answers} == {200}
    assert await balance_in(connection, "savings") == 30
    changed = await other_commands.post("/transfers", json={**body, "amount": 31})
    assert problem(changed, 409, "transfer-already-recorded")["transfer_id"] == "t-1"
    assert (await commands.post("/transfers", json={**body, "transfer_id": "t-2"})).status_code == 200
    assert [await balance_in(connection, name) for name in ("main", "savings")] == [40, 60]


@pytest.mark.promise("commands", "Clients that race for the money of an account through two services never overdraw it")
@pytest.mark.parametrize("number", [None, 2], ids=["now", "backdated"])
async def test_of_many_withdrawals_as_many_succeed_as_the_account_covers(
    commands: httpx.AsyncClient, other_commands: httpx.AsyncClient, connection: Connection, number: int | None
) -> None:
    await open_account(commands, "main", balance=1_000, overdraft_limit=200)
    await commands.post("/accounts/main/deposits", json=entry(5_000, 20))  # which covers nothing of before
    await commands.post("/accounts/main/withdrawals", json=entry(5_000, 21))
    services = itertools.cycle([commands, other_commands])

    async def withdraw(service: httpx.AsyncClient) -> int:
        """Until it is known whether the account covers it."""
        while True:
            answer = await service.post("/accounts/main/withdrawals", json=entry(50, number))
            if answer.status_code == 200 or answer.json()["code"] == "insufficient-funds":
                return answer.status_code
            assert answer.json()["code"] in {"version-conflict", "overloaded"}

    statuses = await asyncio.gather(*(withdraw(next(services)) for _ in range(60)))

    assert statuses.count(200) == 1_200 // 50
    assert await balance_in(connection, "main") == -200


async def test_money_that_is_moved_in_circles_through_two_services_is_all_there(
    commands: httpx.AsyncClient, other_commands: httpx.AsyncClient, connection: Connection
) -> None:
    names = ["a", "b", "c"]
    for name in names:
        await open_account(commands, name, balance=100)
    services = itertools.cycle([commands, other_commands])
    moves = [(names[n % 3], names[(n + 1 + n % 2) % 3], 1 + n % 70) for n in range(90)]

    answers = await asyncio.gather(*(next(services).post("/transfers", json=transfer(*move)) for move in moves))

    balances = dict.fromkeys(names, 100)
    for (source, target, amount), answer in zip(moves, answers, strict=True):
        if answer.status_code == 200:
            balances[source] -= amount
            balances[target] += amount
        else:
            assert answer.json()["code"] in {"insufficient-funds", "version-conflict", "overloaded"}
    assert {name: await balance_in(connection, name) for name in names} == balances
    assert sum(balances.values()) == 300
    assert min(balances.values()) >= 0


async def balance_in(connection: Connection, account_id: str) -> int:
    """By SQL over the log."""
    return int(
        await connection.fetchval(
            """
            select sum((data->>'amount')::numeric * case event_type
                when 'MoneyDeposited' then 1 when 'TransferReceived' then 1 when 'InterestApplied' then 1
                when 'MoneyWithdrawn' then -1 when 'TransferInitiated' then -1 end)
            from events where stream_id = $1
            """,
            f"account-{account_id}",
        )
    )
