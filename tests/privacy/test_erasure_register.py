"""What a backup brings back, the register of erasures destroys again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from shared.aggregates.customer import CustomerErased, ErasureReason
from shared.postgres import create_pool
from shared.privacy.erasure_register import MalformedRegister, decode
from shared.privacy.key_encryption import KeyEncryption
from shared.privacy.subject_keys import SubjectKeys
from shared.settings import Settings
from tests.orders_command import invoke_orders
from tests.recording import put_in_log
from tests.roles import settings_of, url_of

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.mark.promise("privacy", "The register of erasures destroys again what a restored backup brought back")
async def test_a_key_that_a_backup_brought_back_is_destroyed_again(
    connection: Connection, settings: Settings, database_url: str, tmp_path: Path
) -> None:
    pool = await create_pool(settings_of(settings, "orders_command"), "test")
    keys = SubjectKeys(pool, KeyEncryption(lambda: ["a key-encryption key"]))
    erased, kept = await keys.begin("customer-1"), await keys.begin("customer-2")
    backup = await connection.fetch("select * from subject_keys")
    await put_in_log(connection, "customer-1", CustomerErased("1", ErasureReason.OTHER))
    url = url_of(database_url, "orders_auditor")
    listed = await asyncio.to_thread(invoke_orders, "keys", "erasures", "--database-url", url)
    assert [(one.key_id, one.subject) for one in decode(listed.stdout)] == [(erased.key_id, "customer-1")]
    register = tmp_path / "erasures.jsonl"
    register.write_text(listed.stdout)
    await connection.execute("truncate subject_keys")
    await connection.copy_records_to_table("subject_keys", records=[tuple(row) for row in backup])
    assert (await keys.find([erased.key_id])).keys() == {erased.key_id}

    arguments = "log", "new-id", "--reason", "restored", "--erasures", str(register), "--json"
    owner = {"DATABASE_URL": url_of(database_url, "orders_migrator")}
    done = await asyncio.to_thread(invoke_orders, *arguments, env=owner)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["keys_destroyed"] == 1
    assert (await keys.find([erased.key_id, kept.key_id])).keys() == {kept.key_id}
    await pool.close()


@pytest.mark.parametrize("text", ["{}", "key", '{"key_id":"a","subject":"s","erased_at":"today"}'])
def test_what_is_no_register_is_refused(text: str) -> None:
    with pytest.raises(MalformedRegister):
        decode(text)
