"""The read model "customers" in Redis: a document a customer, whose texts are as the events have them."""

from __future__ import annotations

import json
from typing import Any

from tests.independent_folds.event_rows import Log, id_of, time_of
from tests.independent_folds.orders import Document, read_documents

PROFILE = ("name", "email", "phone", "locale")


async def assert_equals(log: Log, redis_url: str, seconds: float) -> None:
    """The live generation holds the fold of the log, within the time."""
    assert await read_documents(log, redis_url, "customers", seconds) == fold(log.rows)


def fold(rows: list[Any]) -> dict[str, Document]:
    """Customer id -> the document after all rows."""
    documents: dict[str, Document] = {}
    for row in rows:
        if (customer_id := id_of(row, "customer")) is None:
            continue
        data, at, what = json.loads(row["data"]), time_of(row), row["event_type"]
        if what == "CustomerRegistered" or row["version"] == 1:
            documents[customer_id] = {"customer_id": customer_id, "registered_at": None, **_empty_profile()}
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
            document.update({**_empty_profile(), "status": "erased", "erased_at": at})
        document.update({"last_event_at": at, "version": row["version"]})
    return documents


def _empty_profile() -> Document:
    return {**dict.fromkeys(PROFILE), "addresses": {}, "payment_methods": {}}
