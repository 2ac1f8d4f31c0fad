"""Keys are wrapped with a new secret while processes use them, and the old secret is needed no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from shared.aggregates.customer import CustomerErased, ErasureReason
from shared.postgres import create_pool
from shared.privacy import rotation
from shared.privacy.key_encryption import CannotUnwrap, KeyEncryption, new_secret, read_secrets, write_secrets
from shared.privacy.rotation import ROTATE_ALONE, add_secret, wrap_anew
from shared.privacy.subject_keys import SubjectKeys, SubjectKeysUnavailable
from shared.settings import Settings
from tests.orders_command import invoke_orders
from tests.recording import put_in_log
from tests.roles import settings_of

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_secrets(tmp_path / "secrets", [new_secret()])
    return tmp_path / "secrets"


def encryption(file: Path) -> KeyEncryption:
    return KeyEncryption(lambda: read_secrets(file))


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[Pool]:
    pool = await create_pool(settings_of(settings, "orders_command"), "test")
    yield pool
    await pool.close()


@pytest.fixture
def keys(pool: Pool, file: Path) -> SubjectKeys:
    """Of a process that runs while the keys are wrapped anew."""
    return SubjectKeys(pool, encryption(file))


async def rotate(connection: Connection, file: Path) -> int:
    await add_secret(connection, file)
    return await wrap_anew(connection, encryption(file))


@pytest.mark.promise("privacy", "`orders keys rotate` wraps every key anew while processes seal and open")
async def test_keys_are_wrapped_anew_while_a_process_uses_them(
    connection: Connection, keys: SubjectKeys, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "BATCH", 3)
    subjects = [f"customer-{number}" for number in range(10)]
    sealed = {subject: (await keys.begin(subject)).seal("email", subject) for subject in subjects}
    working = asyncio.gather(*(keys.begin(f"customer-new-{number}") for number in range(10)))
    wrapped = await rotate(connection, file)
    await working
    wrapped += await wrap_anew(connection, encryption(file))
    assert wrapped >= 10
    newest = encryption(file).newest
    assert {row[0] for row in await connection.fetch("select wrapped_by from subject_keys")} == {newest}
    for subject, value in sealed.items():
        key = await keys.current(subject)
        assert key is not None
        assert key.open("email", value) == subject


async def test_the_secret_before_the_newest_stays_and_older_ones_without_keys_go(
    connection: Connection, keys: SubjectKeys, file: Path
) -> None:
    await keys.begin("customer-1")
    [first] = read_secrets(file)
    await rotate(connection, file)
    second, before = read_secrets(file)
    assert before == first
    await rotate(connection, file)
    assert read_secrets(file)[1:] == [second]
    assert await keys.current("customer-1") is not None


async def test_one_rotation_runs_at_a_time(file: Path, database_url: str) -> None:
    other = await asyncpg.connect(database_url)
    assert await other.fetchval(ROTATE_ALONE)

    def rotated() -> tuple[int, str]:
        done = invoke_orders("keys", "rotate", "--file", str(file), env={"DATABASE_URL": database_url})
        return done.returncode, done.stderr

    assert await asyncio.to_thread(rotated) == (1, "orders: another `orders keys rotate` runs\n")
    await other.close()
    assert await asyncio.to_thread(rotated) == (0, "")


async def test_a_key_that_was_destroyed_is_not_wrapped_anew(
    connection: Connection, keys: SubjectKeys, file: Path
) -> None:
    await keys.begin("customer-1")
    await put_in_log(connection, "customer-1", CustomerErased("1", ErasureReason.OTHER))
    assert await rotate(connection, file) == 0
    assert await keys.current("customer-1") is None


async def test_without_the_old_secret_nothing_is_wrapped_anew(
    connection: Connection, pool: Pool, keys: SubjectKeys, file: Path
) -> None:
    await keys.begin("customer-1")
    before = await connection.fetch("select * from subject_keys")
    write_secrets(file, [new_secret()])
    with pytest.raises(CannotUnwrap):
        await wrap_anew(connection, encryption(file))
    assert await connection.fetch("select * from subject_keys") == before
    assert await keys.current("customer-1") is not None  # this process has the old secret still
    started_since = SubjectKeys(pool, encryption(file))
    with pytest.raises(SubjectKeysUnavailable):
        await started_since.current("customer-1")
