"""`?include=customer`: an order with the name and the e-mail address of its customer, in one answer."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from query_service.api.dependencies import answer
from query_service.api.documents import belongs_to
from query_service.api.log_queries import not_found
from query_service.api.pages import etag_of_body
from query_service.api.requests import unless_known
from query_service.parked_document import parked_headers
from query_service.read_model import ReadModel
from query_service.read_models.customers import CUSTOMERS, READERS, open_customer
from query_service.read_models.order_texts import open_order
from shared.aggregates.order import ORDER
from shared.eventstore.token import ConsistencyToken
from shared.http.request_headers import header
from shared.identity.access import caller_of, limited_to_owner
from shared.identity.caller import ForeignOwner

INCLUDE: dict[str, Any] = {
    "name": "include",
    "in": "query",
    "required": False,
    "description": "`customer`: with the customer's name and e-mail address, for those who may read customers. Not"
    " together with `as_of` or `known_at`.",
    "schema": {"type": "string", "enum": ["customer"]},
    "example": "customer",
}


class _Customer(msgspec.Struct):
    name: str | None
    email: str | None


class _Owned(msgspec.Struct):
    customer_id: str


_decode_owned = msgspec.json.Decoder(_Owned).decode
_decode_customer = msgspec.json.Decoder(_Customer).decode


async def answer_with_customer(request: Request, orders: ReadModel[Any, Any], order_id: str) -> Response:
    """As of the earlier of the two positions. The customer is null where there is none, or it was erased.

    Raises `RequestValidationError`, `RoleMissing`, `ForeignOwner`, and what `answer`, `parked_headers`, `open_order`
    and `open_customer` raise.
    """
    own = _check(request)
    state, token = request.app.state, header(request.scope, b"consistency-token")
    document, headers = await _read(request, orders, order_id)
    if document is None:
        return not_found(request, ORDER, f"There is no order {order_id!r}.", headers)
    customer_id = _decode_owned(document).customer_id
    if own not in (None, customer_id):
        raise ForeignOwner("customer", customer_id)
    del document  # it may be large, and the next read may wait
    customer_at, found, others = await answer(
        request, CUSTOMERS, lambda reader, at_least: reader.one(customer_id, at_least)
    )
    parked_headers(found, customer_at, token)
    shown = None if found.body is None else _decode_customer((await open_customer(state.subject_keys, found.body)).body)
    customer = None if shown is None or shown.name is None else shown
    document, headers = await _read(request, orders, order_id)
    assert document is not None, "an order stays"
    order = (await open_order(state.opened_documents, document)).body
    body = b'%b,"customer":%b}' % (order[:-1], msgspec.json.encode(customer))
    headers["Consistency-Token"] = min(headers["Consistency-Token"], others["Consistency-Token"], key=_position)
    return unless_known(request, body, etag_of_body(body), headers)


async def _read(request: Request, orders: ReadModel[Any, Any], order_id: str) -> tuple[bytes | None, dict[str, str]]:
    """(the order as it is stored, None where the caller reaches none; headers of the answer)."""
    at, document, headers = await answer(request, orders, lambda reader, at_least: reader.one(order_id, at_least))
    owner = limited_to_owner(request.scope)
    if owner is not None and not belongs_to(document, ORDER, owner):
        return None, headers
    token = header(request.scope, b"consistency-token")
    return document.body, headers | parked_headers(document, at, token)


def _check(request: Request) -> str | None:
    """The owner whose customers the caller may read; None: of every owner. Raises `RequestValidationError` and
    `RoleMissing`."""
    if request.query_params.multi_items() != [("include", "customer")]:
        message = "Give customer, and neither as_of nor known_at."
        error = {"type": "not-allowed", "loc": ("query", "include"), "msg": message, "ctx": {"allowed": ["customer"]}}
        raise RequestValidationError([error])
    caller = caller_of(request.scope)
    return None if caller is None else caller.limited_to(READERS)


def _position(token: str) -> int:
    return ConsistencyToken.decode(token).position
