"""The read model "accounts" in Redis: a document an account."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from tests.independent_folds.event_rows import Log, id_of, time_of
from tests.independent_folds.orders import DIGITS, Document, read_documents

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
