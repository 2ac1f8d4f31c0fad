"""GET /accounts/{account_id} and its statement: on both axes of time, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg
import httpx
import pytest
import pytest_asyncio

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from shared.aggregates.account import AccountOpened, MoneyDeposited
from tests.given_when_then import problem
from tests.orders import TOTAL, order_body
from tests.recording import put_in_log
from tests.running import clients_of, fresh_database, running_stack, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="module")

JANUARY = "2026-01-{:02}T12:00:00Z"


class Bank(NamedTuple):
    commands: httpx.AsyncClient
    queries: httpx.AsyncClient
    connection: asyncpg.Connection[asyncpg.Record]
    account_id: str = ""

    @property
    def path(self) -> str:
        return f"/accounts/{self.account_id}"

    async def book(self, what: str, amount: int, number: int) -> datetime:
        """On that day of January; when it was recorded."""
        body = {"amount": amount, "reference": f"day {number}", "occurred_at": JANUARY.format(number)}
        return await self._recorded(await self.commands.post(f"{self.path}/{what}", json=body))

    async def _recorded(self, answer: httpx.Response) -> datetime:
        assert answer.status_code in (200, 201), answer.text
        at: datetime = await self.connection.fetchval(
            "select recorded_at from events where position = $1", answer.json()["position"]
        )
        return at

    async def opened(self, account_id: str, **more: Any) -> Bank:
        body = {"account_id": account_id, "owner_id": "alice", "currency": "GBP", "occurred_at": JANUARY.format(1)}
        await self._recorded(await self.commands.post("/accounts", json={**body, **more}))
        return self._replace(account_id=account_id)

    async def get(self, path: str = "", **parameters: str) -> dict[str, Any]:
        answer = await self.queries.get(self.path + path, params=parameters)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def statement(self, limit: int = 100, **parameters: str) -> list[list[dict[str, Any]]]:
        """The entries of each page; each begins with the balance at which the one before ended."""
        pages, cursor, closing = [], None, None
        while True:
            more: dict[str, str] = {"cursor": cursor} if cursor else {}
            page = await self.get("/statement", limit=str(limit), **parameters, **more)
            assert closing is None or page["opening_balance"] == closing
            pages.append(page["entries"])
            cursor, closing = page["next_cursor"], page["closing_balance"]
            if cursor is None:
                return pages


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bank(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> AsyncIterator[Bank]:
    async with fresh_database(postgres.url) as database_url:
        settings = settings_for(database_url, valkey.url)
        connection = await asyncpg.connect(database_url)
        async with running_stack(settings), clients_of(settings) as (commands, queries):
            yield Bank(commands, queries, connection)
        await connection.close()


@pytest_asyncio.fixture(loop_scope="module")
async def spent(bank: Bank, request: pytest.FixtureRequest) -> Bank:
    """100 on day 2, 70 taken on day 5, and then, backdated, 30 on day 3."""
    account = await bank.opened(f"spent-{request.node.name[:40]}".replace("[", "-").replace("]", ""))
    await account.book("deposits", 100, 2)
    await account.book("withdrawals", 70, 5)
    await account.book("deposits", 30, 3)
    return account


async def test_the_balance_is_read_with_the_token_of_the_command(bank: Bank) -> None:
    account = await bank.opened("read", overdraft_limit=500)
    done = await account.commands.post("/accounts/read/deposits", json={"amount": 1_200, "reference": "salary"})
    headers = {"Consistency-Token": done.headers["consistency-token"], "Prefer": "wait=20"}

    answer = await account.queries.get("/accounts/read", headers=headers)

    shown = answer.json()
    assert list(shown.items()) == [
        ("account_id", "read"),
        ("owner_id", "alice"),
        ("currency", "GBP"),
        ("currency_exponent", 2),
        ("balance", 1_200),
        ("available", 1_700),
        ("overdraft_limit", 500),
        ("interest_paid_until", None),
        ("opened_at", "2026-01-01T12:00:00Z"),
        ("last_event_at", shown["last_event_at"]),
        ("version", 2),
    ]
    assert answer.headers["projection-lag"].isdigit()
    assert (
        await account.queries.get("/accounts/read", headers={"If-None-Match": answer.headers["etag"]})
    ).status_code == 304
    problem(await account.queries.get("/accounts/none"), 404, "account-not-found")


@pytest.mark.promise(
    "queries", "An account's balance is right at every instant of both times, backdated entries included"
)
async def test_a_backdated_entry_counts_from_when_it_occurred_once_it_was_known(bank: Bank) -> None:
    account = await bank.opened("both-axes")
    await account.book("deposits", 100, 2)
    before = await account.book("withdrawals", 70, 5)
    await account.book("deposits", 30, 3)

    async def balance(**times: str) -> int:
        return int((await account.get(**times))["balance"])

    known_before = before.isoformat()
    assert [await balance(as_of=JANUARY.format(day)) for day in (1, 2, 3, 4, 5, 6)] == [0, 100, 130, 130, 60, 60]
    assert [await balance(as_of=JANUARY.format(day), known_at=known_before) for day in (2, 3, 5)] == [100, 100, 30]
    assert await balance(known_at=known_before) == 30
    assert (await account.get(as_of=JANUARY.format(4)))["version"] == 4, "of the last event that counts"
    assert (await account.get(as_of=JANUARY.format(9)))["last_event_at"] == JANUARY.format(5)


async def test_the_document_of_now_is_that_of_the_read_model(spent: Bank) -> None:
    interest = {"annual_rate_bps": 9_999, "from": "2026-01-01", "to": "2026-01-31"}
    done = await spent.commands.post(f"{spent.path}/interest", json=interest)
    headers = {"Consistency-Token": done.headers["consistency-token"], "Prefer": "wait=20"}

    now = await spent.queries.get(spent.path, headers=headers)
    as_of_now = await spent.queries.get(spent.path, params={"known_at": datetime.now(UTC).isoformat()})

    assert now.json()["interest_paid_until"] == "2026-01-31"
    assert as_of_now.content == now.content
    assert as_of_now.headers["etag"] == now.headers["etag"]


@pytest.mark.promise("queries", "A statement's running balance is the balance as of each entry")
async def test_a_statement_lists_what_occurred_with_the_balance_as_of_then(spent: Bank) -> None:
    [entries] = await spent.statement()
    assert [(one["amount"], one["balance"], one["version"]) for one in entries] == [
        (100, 100, 2),
        (30, 130, 4),
        (-70, 60, 3),
    ]
    for one in entries:
        assert (await spent.get(as_of=one["occurred_at"]))["balance"] == one["balance"]


async def test_a_statement_of_a_period_begins_with_the_balance_before_it(spent: Bank) -> None:
    period = {"from": JANUARY.format(3), "to": JANUARY.format(5)}
    page = await spent.get("/statement", **period)
    assert (page["opening_balance"], page["closing_balance"]) == (100, 130)
    assert [one["reference"] for one in page["entries"]] == ["day 3"]
    nothing = await spent.get("/statement", **{"from": JANUARY.format(20)})
    assert (nothing["opening_balance"], nothing["entries"], nothing["closing_balance"]) == (60, [], 60)
    before = await spent.get("/statement", **{"from": "2020-01-01T00:00:00Z", "to": JANUARY.format(2)})
    assert (before["opening_balance"], before["entries"]) == (0, [])


async def test_a_statement_shows_what_was_known_then(bank: Bank) -> None:
    account = await bank.opened("known-then")
    known = await account.book("deposits", 100, 2)
    await account.book("deposits", 30, 1)

    [then] = await account.statement(known_at=known.isoformat())
    [now] = await account.statement()

    assert [(one["amount"], one["balance"]) for one in then] == [(100, 100)]
    assert [(one["amount"], one["balance"]) for one in now] == [(30, 30), (100, 130)]
    earlier = (known - timedelta(days=365)).isoformat()
    problem(
        await account.queries.get(f"{account.path}/statement", params={"known_at": earlier}), 404, "account-not-found"
    )


@pytest.mark.promise(
    "queries", "The pages of a statement neither repeat nor miss an entry, whatever is recorded meanwhile"
)
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_the_pages_are_of_one_statement_whatever_is_recorded_meanwhile(bank: Bank, limit: int) -> None:
    account = await bank.opened(f"pages-{limit}")
    for number in (2, 8, 4, 4, 6):
        await account.book("deposits", number, number)
    [whole] = await account.statement()
    assert [one["amount"] for one in whole] == [2, 4, 4, 6, 8]

    first = await account.get("/statement", limit=str(limit))
    await account.book("deposits", 1_000, 3)  # before what was shown, or in the middle of what was not
    await account.book("deposits", 2_000, 7)
    shown, page = [*first["entries"]], first
    while page["next_cursor"]:
        page = await account.get("/statement", limit=str(limit), cursor=page["next_cursor"])
        shown += page["entries"]

    assert shown == whole
    assert page["closing_balance"] == 24
    assert [one["amount"] for page in await account.statement(limit) for one in page] == [2, 1_000, 4, 4, 6, 2_000, 8]


async def test_a_statement_names_the_other_account_and_the_interest(bank: Bank) -> None:
    account = await bank.opened("named")
    other = await bank.opened("named-other")
    await account.book("deposits", 1_000_000, 2)
    body = {
        "transfer_id": "t-9",
        "from_account_id": "named",
        "to_account_id": "named-other",
        "amount": 5,
        "reference": "r",
    }
    await bank.commands.post("/transfers", json={**body, "occurred_at": JANUARY.format(3)})
    interest = {"annual_rate_bps": 365, "from": "2026-01-02", "to": "2026-01-03", "occurred_at": JANUARY.format(4)}
    await bank.commands.post("/accounts/named/interest", json=interest)

    [[_, sent, paid]] = await account.statement()
    [[received]] = await other.statement()

    assert (sent["transfer_id"], sent["other_account_id"], sent["amount"]) == ("t-9", "named-other", -5)
    assert (received["transfer_id"], received["other_account_id"], received["amount"]) == ("t-9", "named", 5)
    assert (paid["interest_from"], paid["interest_to"], paid["amount"]) == ("2026-01-02", "2026-01-03", 100)


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ({"cursor": "no"}, 400, "malformed-cursor"),
        ({"cursor": "WzAsIjIwMjYtMDEtMDFUMDA6MDA6MDBaIiwxLDFd"}, 400, "malformed-cursor"),  # of version 0
        ({"limit": "101"}, 422, "invalid-request"),
        ({"from": "2026-01-01"}, 422, "invalid-request"),
        ({"from": "0001-01-01T00:00:00Z"}, 422, "invalid-request"),
        ({"as_of": "2026-01-01T00:00:00Z"}, 400, "malformed-query"),
        ({"known_at": "2999-01-01T00:00:00Z"}, 422, "time-in-the-future"),
    ],
    ids=lambda one: str(one)[:30],
)
async def test_what_a_statement_cannot_answer_is_refused(
    bank: Bank, parameters: dict[str, str], status: int, code: str
) -> None:
    problem(await bank.queries.get("/accounts/none/statement", params=parameters), status, code)


@pytest.mark.promise("queries", "A fold goes on from a saved state only where no backdated entry is missing in it")
async def test_saved_states_of_a_long_account_leave_no_backdated_entry_out(bank: Bank) -> None:
    stream_id, begun = "account-long", datetime(2026, 1, 1, tzinfo=UTC)
    entries = [(begun + timedelta(minutes=n - (700 if n % 9 == 0 and n > 700 else 0)), n) for n in range(1, 1_200)]
    await put_in_log(bank.connection, stream_id, AccountOpened("alice", "GBP", 0), at=begun)
    for version, (at, amount) in enumerate(entries, start=1):
        await put_in_log(bank.connection, stream_id, MoneyDeposited(amount, "r"), after=version, at=at)
    account = bank._replace(account_id="long")

    for minutes in (1_199, 300, 750, 301, 1_000, 2, 750):  # later ones first: their states are saved
        as_of = begun + timedelta(minutes=minutes)
        expected = sum(amount for at, amount in entries if at <= as_of)
        assert (await account.get(as_of=as_of.isoformat()))["balance"] == expected, minutes
        page = await account.get("/statement", **{"from": as_of.isoformat(), "limit": "1"})
        assert page["opening_balance"] == sum(amount for at, amount in entries if at < as_of), minutes


async def test_a_payment_from_an_account_shows_on_the_order_and_on_the_account_now_and_then(bank: Bank) -> None:
    account = await bank.opened("payer")
    await account.book("deposits", 5_000, 2)
    placed = order_body(order_id="paid-by-account", occurred_at=JANUARY.format(3))
    assert (await bank.commands.post("/orders", json=placed)).status_code == 201
    payment = {"payment_reference": "of-account", "amount": TOTAL, "account_id": "payer"}
    refund = {"refund_id": "back", "payment_reference": "of-account", "amount": 499, "reason": "late"}
    order, token = "/orders/paid-by-account", {}
    for path, body, number in [("payments", payment, 4), ("refunds", refund, 6)]:
        done = await bank.commands.post(f"{order}/{path}", json={**body, "occurred_at": JANUARY.format(number)})
        assert done.status_code == 200, done.text
        token = {"Consistency-Token": done.headers["Consistency-Token"]}

    shown = (await bank.queries.get(order, headers=token)).json()
    [paid] = shown["payments"]
    assert (paid["account_id"], paid["amount_captured"], paid["amount_refunded"]) == ("payer", TOTAL, 499)
    now = (await bank.queries.get(account.path, headers=token)).json()
    assert now["balance"] == 5_000 - TOTAL + 499 == 5_000 - shown["amount_paid"] + shown["amount_refunded"]

    [[_, withdrawn, deposited]] = await account.statement()
    assert [(one["amount"], one["reference"], one["order_id"]) for one in (withdrawn, deposited)] == [
        (-TOTAL, "of-account", "paid-by-account"),
        (499, "back", "paid-by-account"),
    ]
    for number, kept in [(3, 0), (5, TOTAL), (7, TOTAL - 499)]:
        then = {"as_of": JANUARY.format(number)}
        past = (await bank.queries.get(order, params=then)).json()
        assert past["amount_paid"] - past["amount_refunded"] == kept
        assert (await account.get(**then))["balance"] == 5_000 - kept
