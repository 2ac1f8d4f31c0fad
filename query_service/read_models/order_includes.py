"""`?include=customer,products`: an order with its customer's name and e-mail address, and the cards of its products."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from query_service.api.dependencies import answer
from query_service.api.documents import belongs_to
from query_service.api.lag_header import answer_from
from query_service.api.log_queries import not_found
from query_service.api.pages import etag_of_body
from query_service.api.requests import unless_known
from query_service.parked_document import parked_headers
from query_service.read_model import ReadModel
from query_service.read_models.customers import CUSTOMERS, READERS, open_customer
from query_service.read_models.order_texts import open_order
from query_service.read_models.products import PRODUCTS
from shared.aggregates.order import ORDER
from shared.eventstore.token import ConsistencyToken
from shared.http.client import client_of
from shared.http.request_headers import header
from shared.identity.access import caller_of, limited_to_owner
from shared.identity.caller import ForeignOwner

_READ_MODELS = {"customer": CUSTOMERS.name, "products": PRODUCTS.name}
_CHOICES = ["customer", "products", "customer,products"]
INCLUDE: dict[str, Any] = {
    "name": "include",
    "in": "query",
    "required": False,
    "description": "`customer`: with the customer's name and e-mail address, for those who may read customers."
    " `products`: with the cards of the order's products that the catalogue has. Not together with `as_of` or"
    " `known_at`.",
    "schema": {"type": "string", "enum": _CHOICES},
    "example": "customer,products",
}


class _Customer(msgspec.Struct):
    name: str | None
    email: str | None


class _Line(msgspec.Struct):
    product_id: str


class _Order(msgspec.Struct):
    customer_id: str
    items: tuple[_Line, ...]


_decode_order = msgspec.json.Decoder(_Order).decode
_decode_customer = msgspec.json.Decoder(_Customer).decode


async def answer_with_includes(request: Request, orders: ReadModel[Any, Any], order_id: str) -> Response:
    """As of the earliest of the positions in each feed. The customer is null where there is none, or it was erased; of
    a product that the catalogue does not have there is no card.

    Raises `RequestValidationError`, `RoleMissing`, `ForeignOwner`, `AnswerTooLarge`, and what `answer`,
    `parked_headers`, `open_order` and `open_customer` raise.
    """
    included = _read_include(request)
    own = _reachable_customer(request) if "customer" in included else None
    answer_from(request, orders.name, *(_READ_MODELS[one] for one in included))
    document, headers = await _read(request, orders, order_id)
    if document is None:
        return not_found(request, ORDER, f"There is no order {order_id!r}.", headers)
    order = _decode_order(document)
    del document  # it may be large, and the next read may wait
    parts, tokens = [], []
    if "customer" in included:
        if own not in (None, order.customer_id):
            raise ForeignOwner("customer", order.customer_id)
        customer, token = await _customer(request, order.customer_id)
        parts.append(b'"customer":%b' % customer)
        tokens.append(token)
    if "products" in included:
        cards, token = await _cards(request, [line.product_id for line in order.items])
        parts.append(b'"products":%b' % cards)
        tokens.append(token)
    document, headers = await _read(request, orders, order_id)
    assert document is not None, "an order stays"
    opened = (await open_order(request.app.state.opened_documents, document)).body
    body = b"%b,%b}" % (opened[:-1], b",".join(parts))
    headers["Consistency-Token"] = _earliest_of_each([headers["Consistency-Token"], *tokens])
    return unless_known(request, body, etag_of_body(body), headers)


async def _customer(request: Request, customer_id: str) -> tuple[bytes, str]:
    """(JSON, token)."""
    at, found, headers = await answer(request, CUSTOMERS, lambda reader, at_least: reader.one(customer_id, at_least))
    parked_headers(found, at, header(request.scope, b"consistency-token"))
    shown = None
    if found.body is not None:
        shown = _decode_customer((await open_customer(request.app.state.subject_keys, found.body)).body)
    customer = None if shown is None or shown.name is None else shown
    return msgspec.json.encode(customer), headers["Consistency-Token"]


async def _cards(request: Request, product_ids: Iterable[str]) -> tuple[bytes, str]:
    """(JSON array, token)."""
    named, client = [*dict.fromkeys(product_ids)], client_of(request.scope)
    _, cards, headers = await answer(
        request, PRODUCTS, lambda reader, at_least: reader.several(named, client, at_least)
    )
    return b"[%b]" % b",".join(cards), headers["Consistency-Token"]


async def _read(request: Request, orders: ReadModel[Any, Any], order_id: str) -> tuple[bytes | None, dict[str, str]]:
    """(the order as it is stored, None where the caller reaches none; headers of the answer)."""
    at, document, headers = await answer(request, orders, lambda reader, at_least: reader.one(order_id, at_least))
    owner = limited_to_owner(request.scope)
    if owner is not None and not belongs_to(document, ORDER, owner):
        return None, headers
    token = header(request.scope, b"consistency-token")
    return document.body, headers | parked_headers(document, at, token)


def _read_include(request: Request) -> list[str]:
    """Raises `RequestValidationError`."""
    parameters = request.query_params.multi_items()
    if len(parameters) > 1 or parameters[0][1] not in _CHOICES:
        message = "Give customer, products or customer,products, and neither as_of nor known_at."
        error = {"type": "not-allowed", "loc": ("query", "include"), "msg": message, "ctx": {"allowed": _CHOICES}}
        raise RequestValidationError([error])
    return parameters[0][1].split(",")


def _reachable_customer(request: Request) -> str | None:
    """The owner whose customers the caller may read; None: of every owner. Raises `RoleMissing`."""
    caller = caller_of(request.scope)
    return None if caller is None else caller.limited_to(READERS)


def _earliest_of_each(tokens: Iterable[str]) -> str:
    """Of each feed."""
    earliest: dict[str, str] = {}
    for token in tokens:
        feed = token.partition("-")[0]
        earliest[feed] = min(earliest.get(feed, token), token, key=_position)
    return ", ".join(earliest.values())


def _position(token: str) -> int:
    return ConsistencyToken.decode(token).position
