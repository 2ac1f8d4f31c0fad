"""Changes of the catalogue over HTTP: what is refused, what is repeated, and a feed without gaps whatever fails."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from command_service import catalogue
from shared.settings import Settings
from tests.catalogue import LANTERN, cards_by_join, changes, review, save
from tests.given_when_then import problem
from tests.recording import Connection
from tests.roles import url_of
from tests.running import eventually, free_ports, running_command_service


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A second command service on the same catalogue."""
    [port] = free_ports(1)
    changed = settings.model_copy(update={"command_port": port})
    async with running_command_service(changed) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client


async def test_a_product_is_saved_changed_reviewed_retired_and_saved_again(
    commands: httpx.AsyncClient, connection: Connection
) -> None:
    new = await save(commands, "NAVY MUG")
    assert (new.status_code, new.headers["location"]) == (201, "/products/NAVY%20MUG")
    assert (new.json()["aggregate_id"], new.json()["version"], new.headers["etag"]) == ("NAVY MUG", 1, '"1"')
    assert new.json()["position"] == 3, "two categories are new as well"
    assert new.headers["consistency-token"] == new.json()["consistency_token"]
    changed = await save(commands, "NAVY MUG", brand=None, tags=["candle"], unit_price=299)
    assert (changed.status_code, changed.json()["version"], changed.json()["position"]) == (200, 2, 4)
    await review(commands, "NAVY MUG", stars=5)
    retired = await commands.delete("/products/NAVY MUG")
    assert (retired.status_code, retired.json()["version"]) == (200, 4)
    problem(await commands.delete("/products/NAVY MUG"), 404, "product-not-found")
    problem(
        await commands.post("/products/NAVY MUG/reviews", json={"customer_id": "a", "stars": 1}),
        404,
        "product-not-found",
    )
    assert (await save(commands, "NAVY MUG")).json()["version"] == 5
    rows = await changes(connection)
    assert [row[:4] for row in rows] == [
        (1, "category-1", 1, "CategoryAdded"),
        (2, "category-2", 1, "CategoryAdded"),
        (3, "product-NAVY MUG", 1, "ProductSaved"),
        (4, "product-NAVY MUG", 2, "ProductSaved"),
        (5, "product-NAVY MUG", 3, "ReviewAdded"),
        (6, "product-NAVY MUG", 4, "ProductRetired"),
        (7, "product-NAVY MUG", 5, "ProductSaved"),
    ]
    assert rows[1][4] == {"path": "Home/Lighting"}
    assert (rows[3][4]["brand"], rows[3][4]["tags"], rows[3][4]["unit_price"]) == (None, ["candle"], 299)
    assert (rows[4][4]["reviews"], rows[4][4]["stars"], rows[4][4]["retired"]) == (1, 5, False)
    assert rows[5][4]["retired"] is True
    assert (rows[6][4]["retired"], rows[6][4]["reviews"]) == (False, 1)


async def test_a_repeated_request_is_carried_out_once(commands: httpx.AsyncClient, connection: Connection) -> None:
    key = {"Idempotency-Key": "k"}
    await save(commands)
    body = {"customer_id": "17850", "stars": 4}
    first = await commands.post("/products/LANTERN/reviews", json=body, headers=key)
    again = await commands.post("/products/LANTERN/reviews", json=body, headers=key)
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.json(), again.status_code) == (first.json(), 201)
    assert again.headers["location"] == first.headers["location"]
    reused = await commands.post("/products/LANTERN/reviews", json={**body, "stars": 1}, headers=key)
    problem(reused, 422, "idempotency-key-reused")
    assert await connection.fetchval("select count(*) from reviews") == 1
    assert (await commands.post("/orders", json={}, headers=key)).status_code == 422
    at_once = await asyncio.gather(
        *(commands.put("/products/MUG", json=LANTERN, headers={"Idempotency-Key": "at-once"}) for _ in range(6))
    )
    assert {(answer.status_code, answer.json().get("position")) for answer in at_once} == {(201, 5)}, at_once[-1].text
    assert [answer.headers.get("idempotent-replayed") for answer in at_once].count(None) == 1


async def test_a_stale_version_is_refused_and_changes_nothing(
    commands: httpx.AsyncClient, connection: Connection
) -> None:
    await save(commands)
    await save(commands, unit_price=1)
    for if_match in ('"1"', '"3"', f'"2-1-{"0" * 32}"'):
        refused = await commands.put("/products/LANTERN", json=LANTERN, headers={"If-Match": if_match})
        problem(refused, 412, "stale-version")
    problem(await commands.delete("/products/LANTERN", headers={"If-Match": '"0"'}), 412, "stale-version")
    log_id = await connection.fetchval("select log_id from catalogue_head")
    for number, if_match in enumerate(('"2"', f'W/"3-1-{log_id.hex}"', "*")):
        taken = await commands.put("/products/LANTERN", json=LANTERN, headers={"If-Match": if_match})
        assert taken.json()["version"] == 3 + number
    absent = await commands.put("/products/NEW", json=LANTERN, headers={"If-Match": '"1"'})
    problem(absent, 412, "stale-version")
    assert (await commands.put("/products/NEW", json=LANTERN, headers={"If-Match": '"0"'})).status_code == 201


async def test_a_review_id_is_of_one_review(commands: httpx.AsyncClient) -> None:
    await save(commands)
    await review(commands, review_id="r", stars=5)
    again = {"review_id": "r", "customer_id": "another", "stars": 1}
    problem(await commands.post("/products/LANTERN/reviews", json=again), 409, "review-already-added")


async def test_what_a_review_says_is_sealed(commands: httpx.AsyncClient, connection: Connection) -> None:
    await save(commands)
    await review(commands, text="My neighbour Ada likes it")
    stored = await connection.fetchval("select text from reviews")
    assert stored.startswith("sealed:1:")
    everything = await connection.fetch("select data::text || metadata::text as text from catalogue_changes")
    assert not [row for row in everything if "Ada" in row["text"]]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "n" * 501),
        ("description", "d" * 2_001),
        ("brand", "b" * 101),
        ("category", "a/b/c/d/e"),
        ("category", "a//b"),
        ("category", "/a"),
        ("category", "c" * 51),
        ("tags", ["a"] * 2),
        ("tags", [str(number) for number in range(11)]),
        ("tags", ["t" * 51]),
        ("tags", ["a\tb"]),
        ("unit_price", -1),
        ("unit_price", 10**12 + 1),
        ("unit_price", "1"),
        ("currency", "XXX"),
        ("sku", "s" * 65),
        ("colour", "white"),
    ],
)
async def test_a_value_out_of_bounds_is_refused(commands: httpx.AsyncClient, field: str, value: Any) -> None:
    refused = problem(await commands.put("/products/A", json={**LANTERN, field: value}), 422, "invalid-request")
    assert refused["errors"][0]["pointer"].startswith(f"#/{field}")


@pytest.mark.bound("command", "tags of a product, and names of its category from the root")
async def test_the_largest_product_is_saved(commands: httpx.AsyncClient, connection: Connection) -> None:
    largest: dict[str, Any] = {
        "name": "\U0001f600" * 500,
        "description": "\U0001f600" * 2_000,
        "brand": "\U0001f600" * 100,
        "category": "/".join(["\U0001f600" * 50] * 4),
        "tags": [str(number) + "\U0001f600" * 49 for number in range(10)],
        "unit_price": 10**12,
        "sku": "\U0001f600" * 64,
    }
    await save(commands, "A" * 64, **largest)
    card = (await cards_by_join(connection))["A" * 64]
    assert {name: card[name] for name in largest} == largest


@pytest.mark.bound("command", "categories of the catalogue")
async def test_a_catalogue_has_a_thousand_categories_at_most(
    commands: httpx.AsyncClient, connection: Connection
) -> None:
    await connection.execute("insert into categories (path) select 'c' || n from generate_series(1, 998) as n")
    await save(commands, "A", category="x/y")
    refused = problem(await commands.put("/products/B", json={**LANTERN, "category": "z"}), 409, "too-many-categories")
    assert refused["most"] == 1_000
    await save(commands, "B", category="x/y")
    assert await connection.fetchval("select count(*) from categories") == 1_000


_END_SESSIONS = (
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'orders-catalogue'"
    " and datname = current_database()"
)
NOT_FOR_COMMANDS = [
    "insert into catalogue_changes select * from catalogue_changes",
    "update catalogue_changes set data = '{}'",
    "update catalogue_head set position = 0",
    "delete from products",
    "update reviews set stars = 5",
    "delete from reviews",
    "update brands set name = 'x'",
    "update categories set path = 'x'",
    "select append_catalogue_change('product-A', 9, 'ProductSaved', '{}', '{}', now(), gen_random_uuid(), null, null)",
]


@pytest.mark.promise("security", "The command service's role changes the catalogue's tables and cannot write its feed")
async def test_each_role_may_do_what_it_needs(
    commands: httpx.AsyncClient, connection: Connection, database_url: str
) -> None:
    await save(commands)
    await review(commands)
    command = await asyncpg.connect(url_of(database_url, "orders_command"))
    for statement in NOT_FOR_COMMANDS:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await command.execute(statement)
    await command.close()
    for role in ("orders_projector", "orders_query", "orders_auditor"):
        other = await asyncpg.connect(url_of(database_url, role))
        assert await other.fetchval("select position from catalogue_head") == 4
        for table in ("products", "brands", "categories", "tags", "product_tags", "reviews", "catalogue_changes"):
            for right in ("insert", "update", "delete", "truncate"):
                assert not await connection.fetchval("select has_table_privilege($1, $2, $3)", role, table, right)
        await other.close()
    for statement in ("update catalogue_changes set data = '{}'", "truncate catalogue_changes"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await connection.execute(statement)


@pytest.mark.promise("event-log", "The catalogue's feed is dense and in commit order, whatever collides or fails")
@pytest.mark.parametrize("seed", range(4))
async def test_the_feed_has_no_gaps_whatever_collides_or_fails(
    commands: httpx.AsyncClient, other: httpx.AsyncClient, connection: Connection, seed: int
) -> None:
    rng = random.Random(seed)
    acknowledged: set[tuple[int, str, int]] = set()

    async def work(client: httpx.AsyncClient) -> None:
        for _ in range(12):
            product_id = rng.choice("ABC")
            answer = await _random_change(client, rng, product_id)
            assert answer.status_code in (200, 201, 404, 409, 412, 503, 504), answer.text
            if answer.is_success:
                told = answer.json()
                one = (told["position"], f"product-{product_id}", told["version"])
                assert one not in acknowledged
                acknowledged.add(one)

    async def fail() -> None:
        """Ends the sessions that change the catalogue, within whatever they do."""
        for _ in range(6):
            await asyncio.sleep(rng.random() * 0.05)
            await connection.execute(f"{_END_SESSIONS} and random() < 0.5")

    await asyncio.gather(*(work(client) for client in (commands, other) for _ in range(4)), fail())

    rows = await changes(connection)
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    assert await connection.fetchval("select position from catalogue_head") == len(rows)
    versions: dict[str, int] = {}
    for _, stream, version, _, _ in rows:
        assert version == versions.get(stream, 0) + 1
        versions[stream] = version
    assert acknowledged <= {row[:3] for row in rows}
    await _assert_latest_rows_say_what_the_tables_say(connection, rows, versions)
    await _assert_hashes_follow(connection)


async def _random_change(client: httpx.AsyncClient, rng: random.Random, product_id: str) -> httpx.Response:
    headers = {"If-Match": f'"{rng.randrange(4)}"'} if rng.random() < 0.2 else {}
    match rng.randrange(5):
        case 0:
            return await client.delete(f"/products/{product_id}", headers=headers)
        case 1 | 2:
            review = {"customer_id": "c", "stars": rng.randint(1, 5), "review_id": f"r{rng.randrange(40)}"}
            return await client.post(f"/products/{product_id}/reviews", json=review, headers=headers)
        case _:
            product = {
                "brand": rng.choice(["x", "y", None]),
                "category": rng.choice(["k", "k/l", "m/n/o", None]),
                "tags": rng.sample(["p", "q", "r", "s"], rng.randrange(5)),
            }
            return await client.put(f"/products/{product_id}", json={**LANTERN, **product}, headers=headers)


async def _assert_latest_rows_say_what_the_tables_say(
    connection: Connection, rows: list[tuple[int, str, int, str, dict[str, Any]]], versions: dict[str, int]
) -> None:
    latest = {stream.removeprefix("product-"): data for _, stream, _, _, data in rows if stream.startswith("product-")}
    joined = await cards_by_join(connection)
    assert latest.keys() == joined.keys()
    for product_id, card in joined.items():
        data = latest[product_id]
        both = data.keys() & card.keys()
        assert {name: data[name] for name in both} == {name: card[name] for name in both}
        assert (data["reviews"], versions[f"product-{product_id}"]) == (card["review_count"], card["version"])
    paths = [data["path"] for _, stream, _, _, data in rows if stream.startswith("category-")]
    assert sorted(paths) == [row["path"] for row in await connection.fetch("select path from categories order by path")]


async def _assert_hashes_follow(connection: Connection) -> None:
    """Each hash is of the one before and the row, as tests/shared/hash_chain.py says for events."""
    previous = hashlib.sha256((await connection.fetchval("select log_id from catalogue_head")).bytes).digest()
    for row in await connection.fetch("select * from catalogue_changes order by position"):
        expected = await connection.fetchval(
            "select event_hash($1, position, stream_id, version, event_id, event_type, schema_version, data::text,"
            " metadata::text, occurred_at, recorded_at) from catalogue_changes where position = $2",
            previous,
            row["position"],
        )
        assert row["hash"] == expected
        previous = expected


async def test_a_change_whose_connection_is_lost_is_unavailable_or_unknown(
    commands: httpx.AsyncClient, connection: Connection
) -> None:
    await save(commands)
    async with connection.transaction():
        await connection.execute("select * from products for update")
        waiting = asyncio.create_task(commands.put("/products/LANTERN", json=LANTERN))
        await eventually(lambda: _is_waiting(connection))
        await connection.execute(_END_SESSIONS)
        problem(await waiting, 503, "log-unavailable")
    assert (await save(commands)).json()["version"] == 2


async def _is_waiting(connection: Connection) -> bool:
    return bool(await connection.fetchval("select count(*) from pg_locks where not granted"))


def test_every_change_has_a_type_of_its_own() -> None:
    assert len({*catalogue._EVENT_TYPES.values()}) == 3
