"""Subjects have one key at a time, which the event of their erasure destroys, in the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pytest

from query_service import opened_documents
from query_service.opened_documents import OpenedDocuments
from query_service.read_models.order_texts import open_orders
from shared.aggregates.customer import CustomerErased, CustomerRegistered, ErasureReason
from shared.aggregates.order.personal_texts import NOTE
from shared.postgres import create_pool
from shared.privacy import subject_key_cache, subject_keys
from shared.privacy.key_encryption import KeyEncryption
from shared.privacy.sealed import SubjectKey
from shared.privacy.subject_key_cache import MAX_AGE_SECONDS, SubjectKeyCache
from shared.privacy.subject_keys import SubjectKeys, SubjectKeysUnavailable
from shared.settings import Settings
from tests.recording import put_in_log
from tests.roles import ROLES, Role, settings_of, url_of
from tests.running import eventually

SUBJECT = "customer-1"
SECRET = "a key-encryption key"

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    pool = await create_pool(settings_of(settings, "orders_command"), "test")
    yield pool
    await pool.close()


@pytest.fixture
def keys(pool: asyncpg.Pool[asyncpg.Record]) -> SubjectKeys:
    return SubjectKeys(pool, KeyEncryption(lambda: [SECRET]))


async def register(connection: Connection, keys: SubjectKeys, after: int = 0) -> str:
    """A sealed e-mail address of the subject."""
    key = await keys.begin(SUBJECT)
    registered = CustomerRegistered("1", key.seal("name", "Ada"), key.seal("email", "ada@example.org"))
    await put_in_log(connection, SUBJECT, registered, after=after)
    return registered.email


async def erase(connection: Connection, after: int = 1) -> None:
    await put_in_log(connection, SUBJECT, CustomerErased("1", ErasureReason.OTHER), after=after)


async def test_a_subject_keeps_its_key(keys: SubjectKeys) -> None:
    assert await keys.current(SUBJECT) is None
    one, other = await asyncio.gather(keys.begin(SUBJECT), keys.begin(SUBJECT))
    assert one.key_id == other.key_id
    again = await keys.current(SUBJECT)
    assert again is not None
    assert again.open("email", one.seal("email", "ada@example.org")) == "ada@example.org"
    assert (await keys.find([one.key_id, "no such key id"])).keys() == {one.key_id}


@pytest.mark.promise("privacy", "The event of an erasure destroys the subject's key in the same transaction")
async def test_the_event_of_an_erasure_destroys_the_key(connection: Connection, keys: SubjectKeys) -> None:
    await register(connection, keys)
    before = await keys.current(SUBJECT)
    assert before is not None
    await erase(connection)
    assert await keys.current(SUBJECT) is None
    assert await keys.find([before.key_id]) == {}
    assert await connection.fetchval("select count(*) from subject_keys where wrapped is not null") == 0


@pytest.mark.promise(
    "privacy", "A registration after an erasure gets a new key, which opens nothing of the person before"
)
async def test_a_second_registration_gets_a_key_that_opens_nothing_old(
    connection: Connection, keys: SubjectKeys
) -> None:
    email = await register(connection, keys)
    await erase(connection)
    assert await register(connection, keys, after=2) != email
    key = await keys.current(SUBJECT)
    assert key is not None
    assert key.key_id not in email
    assert await connection.fetchval("select array_agg(generation order by generation) from subject_keys") == [1, 2]


@pytest.mark.parametrize("role", ROLES[1:])
async def test_no_role_destroys_or_replaces_a_key_without_the_event(
    keys: SubjectKeys, database_url: str, role: Role
) -> None:
    await keys.begin(SUBJECT)
    intruder = await asyncpg.connect(url_of(database_url, role))
    await intruder.execute("set default_transaction_read_only = off")
    for statement in (
        "delete from subject_keys",
        "truncate subject_keys",
        "update subject_keys set wrapped = 'x'",
        "insert into subject_keys select",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await intruder.execute(statement)
    reads = intruder.fetch("select wrapped from subject_keys")
    if role in ("orders_command", "orders_query"):
        assert len(await reads) == 1
    else:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reads
    await intruder.close()


async def test_without_a_secret_nothing_is_sealed(pool: asyncpg.Pool[asyncpg.Record], keys: SubjectKeys) -> None:
    with pytest.raises(SubjectKeysUnavailable, match="KEY_ENCRYPTION_KEY"):
        await SubjectKeys(pool, None).begin(SUBJECT)
    await keys.begin(SUBJECT)
    with pytest.raises(SubjectKeysUnavailable, match="missing"):
        await SubjectKeys(pool, KeyEncryption(lambda: ["another key-encryption key"])).current(SUBJECT)


async def checked_cache(keys: SubjectKeys) -> SubjectKeyCache:
    """One that knows the log and what was destroyed."""
    cache = SubjectKeyCache(keys)
    await cache.drop_destroyed()
    return cache


# --- cache ---------------------------------------------------------------------------------------------------------


@pytest.mark.promise("privacy", "A process drops a destroyed key from its cache within a second")
async def test_a_destroyed_key_is_dropped_within_a_second(connection: Connection, keys: SubjectKeys) -> None:
    await register(connection, keys)
    key = await keys.begin(SUBJECT)
    cache = SubjectKeyCache(keys)
    dropping = asyncio.create_task(cache.drop_for_ever())
    await eventually(lambda: cache.find(key.key_id, SUBJECT))
    await eventually(lambda: len(cache) == 1 or cache.find(key.key_id, SUBJECT))
    await erase(connection)
    erased_at = asyncio.get_running_loop().time()
    await eventually(lambda: len(cache) == 0)
    assert asyncio.get_running_loop().time() - erased_at < MAX_AGE_SECONDS
    assert await cache.find(key.key_id, SUBJECT) is None
    dropping.cancel()


async def test_a_process_that_cannot_ask_for_destroyed_keys_uses_no_cached_one(
    connection: Connection, keys: SubjectKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(connection, keys)
    key = await keys.begin(SUBJECT)
    cache = await checked_cache(keys)
    assert await cache.find(key.key_id, SUBJECT)
    await erase(connection)
    monkeypatch.setattr(subject_key_cache, "MAX_AGE_SECONDS", 0.0)  # as if that time had passed
    assert await cache.find(key.key_id, SUBJECT) is None
    assert key.key_id not in cache


@pytest.mark.bound("command, query", "cached keys of customers")
async def test_the_cache_is_bounded(keys: SubjectKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_key_cache, "MAX_KEYS", 2)
    cache = await checked_cache(keys)
    for number in range(4):
        key = await keys.begin(f"customer-{number}")
        assert await cache.find(key.key_id, key.subject)
    assert len(cache) == 2


@pytest.mark.bound("query", "orders with their texts opened, cached until a key is destroyed")
@pytest.mark.promise("privacy", "What was opened before is cached until the next key is destroyed, in 8 MiB at most")
async def test_opened_documents_are_cached_until_a_key_is_destroyed(
    connection: Connection, keys: SubjectKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_documents, "MAX_BYTES", 30)
    await register(connection, keys)
    cache = await checked_cache(keys)
    documents = OpenedDocuments(cache)
    before = cache.epoch
    for number in range(9):
        documents.put(b"sealed %d" % number, b"opened", before)
    assert (len(documents), documents.find(b"sealed 8"), documents.find(b"sealed 0")) == (2, b"opened", None)
    await erase(connection)
    await cache.drop_destroyed()
    assert documents.find(b"sealed 8") is None
    documents.put(b"sealed 8", b"opened", before)  # with a key that was found before the erasure
    assert documents.find(b"sealed 8") is None


async def test_a_key_that_was_destroyed_while_it_was_read_is_not_cached(
    connection: Connection, keys: SubjectKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(connection, keys)
    key = await keys.begin(SUBJECT)
    cache = await checked_cache(keys)

    async def read_before_the_erasure(_: object) -> dict[str, SubjectKey]:
        await erase(connection)
        await cache.drop_destroyed()
        return {key.key_id: key}

    with monkeypatch.context() as patched:
        patched.setattr(keys, "find", read_before_the_erasure)
        await cache.find(key.key_id, SUBJECT)
    assert key.key_id not in cache
    assert await cache.find(key.key_id, SUBJECT) is None


async def test_destroyed_keys_are_read_page_by_page(
    connection: Connection, keys: SubjectKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject_keys, "MAX_DESTROYED", 2)
    monkeypatch.setattr(subject_key_cache, "MAX_DESTROYED", 2)
    cache = await checked_cache(keys)
    found = [await keys.begin(f"customer-{number}") for number in range(5)]
    for key in found:
        assert await cache.find(key.key_id, key.subject)
        await put_in_log(connection, key.subject, CustomerErased(key.subject, ErasureReason.OTHER))
    left = []
    for _ in range(3):
        await cache.drop_destroyed()
        left.append(sum(key.key_id in cache for key in found))
    assert left == [3, 1, 0]


async def test_several_orders_are_opened_with_one_read_of_their_keys(
    keys: SubjectKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: dict[str, Any] = dict.fromkeys(("shipping_address", "hold_reason", "cancellation"))
    others |= {"refunds": [], "returns": []}
    orders = []
    for number in range(20):
        key = await keys.begin(f"customer-{number}")
        orders.append({"customer_id": f"{number}", "note": key.seal(NOTE, "a"), **others})
    reads = []
    find = keys.find

    async def counted(key_ids: Collection[str]) -> dict[str, SubjectKey]:
        reads.append(len(key_ids))
        return await find(key_ids)

    monkeypatch.setattr(keys, "find", counted)
    documents = OpenedDocuments(SubjectKeyCache(keys))
    opened = msgspec.json.decode(await open_orders(documents, msgspec.json.encode(orders)))
    assert [order["note"] for order in opened] == ["a"] * 20
    assert reads == [20]


async def test_the_cache_is_dropped_when_the_log_was_restored(connection: Connection, keys: SubjectKeys) -> None:
    key = await keys.begin(SUBJECT)
    cache = await checked_cache(keys)
    assert await cache.find(key.key_id, SUBJECT)
    await connection.execute("update log_head set log_id = gen_random_uuid()")
    await cache.drop_destroyed()
    assert len(cache) == 0
