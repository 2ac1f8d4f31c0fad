"""The read model "stock" in Redis: a document a product."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from tests.independent_folds.event_rows import Log, id_of, time_of
from tests.independent_folds.orders import Document, read_documents

# What a piece adds to `on_hand`, `reserved` and `sold`.
EFFECTS = {
    "StockReceived": (1, 0, 0),
    "StockAdjusted": (1, 0, 0),
    "StockReserved": (0, 1, 0),
    "StockReleased": (0, -1, 0),
    "StockReservationExpired": (0, -1, 0),
    "StockShipped": (-1, -1, 1),
    "StockReturned": (1, 0, -1),
}


async def assert_equals(log: Log, redis_url: str, seconds: float) -> None:
    """The live generation holds the fold of the log, within the time."""
    found = await read_documents(log, redis_url, "stock", seconds)
    assert found == fold(log.rows)


def fold(rows: list[Any]) -> dict[str, Document]:
    """Product id -> the document after all rows."""
    documents: dict[str, Document] = {}
    for row in rows:
        if (product_id := id_of(row, "stock")) is None:
            continue
        data, at = json.loads(row["data"]), time_of(row)
        nothing = {"product_id": product_id, "on_hand": 0, "reserved": 0, "sold": 0, "last_event_at": at}
        document = documents.setdefault(product_id, nothing)
        pieces = data["delta"] if row["event_type"] == "StockAdjusted" else data["quantity"]
        for name, effect in zip(("on_hand", "reserved", "sold"), EFFECTS[row["event_type"]], strict=True):
            document[name] += effect * pieces
        document["available"] = document["on_hand"] - document["reserved"]
        document["last_event_at"] = max(document["last_event_at"], at, key=datetime.fromisoformat)
        document["version"] = row["version"]
    return documents
