"""The read model "accounts" in Redis: a document an account."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from zlib import crc32

from tests.independent_folds.event_rows import Log, id_of, time_of
from tests.independent_folds.orders import DIGITS, Document, catch_up, client_at

SIGNS = {
    "MoneyDeposited": 1,
    "TransferReceived": 1,
    "InterestApplied": 1,
    "MoneyWithdrawn": -1,
    "TransferInitiated": -1,
}


async def assert_equals(log: Log, redis_url: str, seconds: float) -> None:
    """The live generation holds the fold of the log, within the time."""
    assert await read_documents(log, redis_url, "accounts", seconds) == fold(log.rows)


async def read_documents(log: Log, redis_url: str, read_model: str, seconds: float) -> dict[str, Document]:
    """By id, each from the partition that it belongs to, once all of the log is there."""
    found: dict[str, Document] = {}
    async with client_at(redis_url) as redis:
        prefixes = await catch_up(redis, read_model, [log.log_id.hex, str(log.position)], seconds)
        for number, prefix in enumerate(prefixes):
            async for key in redis.scan_iter(match=f"{prefix}doc:*", count=1_000):
                document_id = key.removeprefix(f"{prefix}doc:")
                assert crc32(document_id.encode()) % len(prefixes) == number
                found[document_id] = json.loads(await redis.hget(key, "document") or "null")
    return found


def fold(rows: list[Any]) -> dict[str, Document]:
    """Account id -> the document after all rows."""
    documents: dict[str, Document] = {}
    for row in rows:
        if (account_id := id_of(row, "account")) is None:
            continue
        data, at = json.loads(row["data"]), time_of(row)
        if row["event_type"] == "AccountOpened":
            assert account_id not in documents
            documents[account_id] = {
                "account_id": account_id,
                "owner_id": data["owner_id"],
                "currency": data["currency"],
                "currency_exponent": DIGITS.get(data["currency"], 2),
                "balance": 0,
                "overdraft_limit": data["overdraft_limit"],
                "interest_paid_until": None,
                "opened_at": at,
                "last_event_at": at,
            }
        else:
            documents[account_id]["balance"] += SIGNS[row["event_type"]] * data["amount"]
        document = documents[account_id]
        if row["event_type"] == "InterestApplied":
            document["interest_paid_until"] = data["to"]
        document["available"] = document["balance"] + document["overdraft_limit"]
        document["last_event_at"] = max(document["last_event_at"], at, key=datetime.fromisoformat)
        document["version"] = row["version"]
    return documents
