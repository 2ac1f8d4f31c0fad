"""Whether a document is another owner's is read from its beginning, without decoding it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from query_service.api.documents import belongs_to
from query_service.read_result import Document
from shared.aggregates.account import ACCOUNT, AccountDocument
from shared.aggregates.aggregate import Aggregate
from shared.aggregates.order import ORDER, OrderDocument

OWNED: list[tuple[Aggregate[Any, Any], type[msgspec.Struct]]] = [(ORDER, OrderDocument), (ACCOUNT, AccountDocument)]


def _document(aggregate: Aggregate[Any, Any], owner_id: str, aggregate_id: str = "536365", **others: Any) -> Document:
    assert aggregate.owner is not None
    fields = {f"{aggregate.noun}_id": aggregate_id, aggregate.owner.field: owner_id, "currency": "GBP", **others}
    return Document(msgspec.json.encode(fields), b"1")


@pytest.mark.parametrize(("aggregate", "document"), OWNED)
def test_documents_begin_with_their_id_and_their_owner(
    aggregate: Aggregate[Any, Any], document: type[msgspec.Struct]
) -> None:
    assert aggregate.owner is not None
    first, second, *_ = msgspec.structs.fields(document)
    assert (first.encode_name, second.encode_name) == (f"{aggregate.noun}_id", aggregate.owner.field)


@pytest.mark.parametrize(("aggregate", "_"), OWNED)
@pytest.mark.parametrize("owner_id", ["17850", 'a"b\\', "Ĳsbrand, Ö", ","])
@pytest.mark.parametrize("aggregate_id", ["536365", 'a,"b'])
def test_a_document_belongs_to_its_owner(
    aggregate: Aggregate[Any, Any], _: type[msgspec.Struct], owner_id: str, aggregate_id: str
) -> None:
    expected = "," not in aggregate_id  # no id has one; a document that had one would have no owner
    assert belongs_to(_document(aggregate, owner_id, aggregate_id), aggregate, owner_id) is expected


@pytest.mark.parametrize("other", ["1785", "178501", "", '17850"', '17850","x":"'])
def test_a_document_does_not_belong_to_a_similar_owner(other: str) -> None:
    assert not belongs_to(_document(ORDER, "17850"), ORDER, other)


def test_nothing_within_a_document_names_its_owner() -> None:
    text = ',"customer_id":"13047"'
    metadata = {"customer_id": "13047", text: text}
    for aggregate_id in ("536365", text):
        document = _document(ORDER, "17850", aggregate_id, note=text, metadata=metadata)
        assert not belongs_to(document, ORDER, "13047")


def test_what_does_not_exist_belongs_to_nobody() -> None:
    assert not belongs_to(Document(None, None), ORDER, "17850")
