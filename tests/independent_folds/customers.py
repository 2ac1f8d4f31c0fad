"""The read model "customers" in Redis: a document a customer, whose texts are as the events have them."""

from __future__ import annotations

import json
from typing import Any
from zlib import crc32

from tests.independent_folds.event_rows import Log, id_of, time_of
from tests.independent_folds.orders import Document, catch_up, client_at

PROFILE = ("name", "email", "phone", "locale")


async def assert_equals(log: Log, redis_url: str, seconds: float) -> None:
    """The live generation holds the fold of the log, within the time."""
    documents = fold(log.rows)
    async with client_at(redis_url) as redis:
        prefixes = await catch_up(redis, "customers", [log.log_id.hex, str(log.position)], seconds)
        found: dict[str, tuple[int, Document]] = {}
        for number, prefix in enumerate(prefixes):
            async for key in redis.scan_iter(match=f"{prefix}doc:*", count=1_000):
                document = json.loads(await redis.hget(key, "document") or "null")
                found[key.removeprefix(f"{prefix}doc:")] = number, document
    assert found == {
        customer_id: (crc32(customer_id.encode()) % len(prefixes), document)
        for customer_id, document in documents.items()
    }


def fold(rows: list[Any]) -> dict[str, Document]:
    """Customer id -> the document after all rows."""
    documents: dict[str, Document] = {}
    for row in rows:
        if (customer_id := id_of(row, "customer")) is None:
            continue
        data, at, what = json.loads(row["data"]), time_of(row), row["event_type"]
        if what == "CustomerRegistered" or row["version"] == 1:
            documents[customer_id] = {"customer_id": customer_id, "registered_at": None, **_nobody()}
        if what == "CustomerRegistered":
            documents[customer_id].update({"status": "registered", "registered_at": at, "erased_at": None})
        document = documents[customer_id]
        if what in ("CustomerRegistered", "CustomerProfileChanged", "CustomerEmailChanged"):
            document.update({name: data[name] for name in PROFILE if name in data})
        elif what == "AddressSaved":
            document["addresses"][data["address_id"]] = data["address"]
        elif what == "AddressRemoved":
            del document["addresses"][data["address_id"]]
        elif what == "PaymentMethodSaved":
            document["payment_methods"][data["payment_method_id"]] = data["payment_method"]
        elif what == "PaymentMethodRemoved":
            del document["payment_methods"][data["payment_method_id"]]
        else:
            assert what == "CustomerErased"
            document.update({**_nobody(), "status": "erased", "erased_at": at})
        document.update({"last_event_at": at, "version": row["version"]})
    return documents


def _nobody() -> Document:
    return {**dict.fromkeys(PROFILE), "addresses": {}, "payment_methods": {}}
