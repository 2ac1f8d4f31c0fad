"""The customers read model: one customer, opened where it leaves."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import Response

from query_service.api import documents, log_queries
from query_service.api.dependencies import answer
from query_service.api.log_queries import TIME_IN_THE_FUTURE, TIMES
from query_service.api.requests import (
    ETAG_EXAMPLE,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    PARKED_HEADER,
    TOKEN_HEADERS,
    OpenedDocument,
    answer_headers,
)
from query_service.coalescing_reader import CoalescingReader
from query_service.parked_document import ProjectionParked
from query_service.read_model import ReadModel
from query_service.read_result import Document, ReadResult
from query_service.redis_store import in_redis
from shared.aggregates.customer import CUSTOMER, CustomerDocument, CustomerErased, CustomerStatus, opened
from shared.errors import NotFound
from shared.eventstore.token import ConsistencyToken
from shared.http.fast_route import FastRoute
from shared.http.fields import Id
from shared.http.openapi import UNREADABLE, Described, responses
from shared.identity.access import allowed, check_owner
from shared.identity.caller import Role
from shared.privacy.sealed import Unopenable, key_id_of
from shared.privacy.subject_key_cache import SubjectKeyCache
from shared.privacy.subject_keys import SubjectKeysUnavailable

READERS = frozenset({Role.CUSTOMER, Role.STAFF, Role.SERVICE, Role.PRIVACY})  # of a customer

_decode = msgspec.json.Decoder(CustomerDocument).decode
_KEY_IDS = re.compile(rb"sealed:1:([A-Za-z0-9_-]{16}):")

# --- reader --------------------------------------------------------------------------------------------------------


class CustomersReader:
    def __init__(self, reader: CoalescingReader) -> None:
        self._reader = reader

    def one(self, customer_id: str, at_least: ConsistencyToken | None) -> asyncio.Future[ReadResult[Document]]:
        return self._reader.document(customer_id, at_least)


# --- document, as OpenAPI shows it ---------------------------------------------------------------------------------

_ADDRESS: dict[str, Any] = {
    "name": "Ada Lovelace",
    "lines": ["12 St James's Square"],
    "city": "London",
    "country": "GB",
    "postal_code": "SW1Y 4JH",
}
_EXAMPLE: dict[str, Any] = {
    "customer_id": "17850",
    "status": "registered",
    "name": "Ada Lovelace",
    "email": "ada@example.org",
    "phone": None,
    "locale": "en-GB",
    "addresses": {"home": _ADDRESS},
    "payment_methods": {"visa": {"provider": "payments.example", "token": "tok_visa_tour", "last4": "4242"}},
    "registered_at": "2010-12-01T08:26:00Z",
    "erased_at": None,
    "last_event_at": "2010-12-01T08:27:00Z",
    "version": 3,
}


class CustomerAddress(BaseModel):
    name: str
    lines: list[str]
    city: str
    country: str = Field(description="ISO 3166")
    region: str | None = None
    postal_code: str | None = None
    phone: str | None = None


class CustomerPaymentMethod(BaseModel):
    provider: str
    token: str = Field(description="the provider's")
    brand: str | None = None
    last4: str | None = None
    expires: str | None = Field(None, description="year and month")


class Customer(BaseModel):
    """Of an erased customer, the name and everything else about the person is null or empty."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})
    customer_id: str
    status: CustomerStatus
    name: str | None
    email: str | None
    phone: str | None
    locale: str | None
    addresses: dict[str, CustomerAddress] = Field(description="by their ids")
    payment_methods: dict[str, CustomerPaymentMethod] = Field(description="by their ids")
    registered_at: AwareDatetime | None = Field(description="null: erased, and never registered")
    erased_at: AwareDatetime | None
    last_event_at: AwareDatetime = Field(description="business time of the last event")
    version: int = Field(description="number of events so far")


class SearchedStore(BaseModel):
    store: str
    searched: int = Field(description="keys, or sealed values")
    found: int = Field(description="of them, those that exist, or open, still")


class ErasureReport(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "customer_id": "17850",
                "erased_at": "2011-12-01T08:26:00Z",
                "position": 1_234,
                "stores": [
                    {"store": "keys", "searched": 1, "found": 0},
                    {"store": "events", "searched": 9, "found": 0},
                    {"store": "read model", "searched": 0, "found": 0},
                    {"store": "cached keys", "searched": 1, "found": 0},
                ],
            }
        }
    )
    customer_id: str
    erased_at: AwareDatetime = Field(description="when the event was recorded that destroyed the key")
    position: int = Field(description="of that event in the log")
    stores: list[SearchedStore]


class CustomerNotErased(NotFound):
    code = "customer-not-erased"
    title = "The customer was not erased"


# --- routes --------------------------------------------------------------------------------------------------------

router = APIRouter(tags=["customers"], route_class=FastRoute)


async def open_customer(keys: SubjectKeyCache, body: bytes) -> OpenedDocument:
    """Raises `SubjectKeysUnavailable` and `Unopenable`."""
    document = _decode(body)
    key_id = None if document.name is None else key_id_of(document.name)
    key = None if key_id is None else await keys.find(key_id, CUSTOMER.stream_of(document.customer_id))
    return OpenedDocument(msgspec.json.encode(opened(document, key)), erased=key is None)


_PROBLEMS: tuple[Described, ...] = (
    *documents.UNAVAILABLE,
    *log_queries.UNAVAILABLE,
    (SubjectKeysUnavailable("PostgreSQL does not answer"), "The keys of personal data cannot be read."),
    (Unopenable("bXkga2V5IGlkIDEy", "email"), "A stored value was not sealed as this field of this customer."),
    (ProjectionParked(1_200, "CustomerEmailChanged"), "The read model could not apply an event that the token names."),
    (422, "invalid-request", "A parameter is not acceptable."),
)

CustomerId = Annotated[Id, Path(description="as given or made at registration", examples=["ada"])]


@router.get(
    "/customers/{customer_id}",
    summary="One customer, now or at an earlier time",
    description="With the token of a command's acknowledgement, the answer shows the events of that command. With"
    " `as_of`, `known_at` or both: the customer as it was then, folded from the log.\n\n"
    "Of an erased customer nothing about the person is shown, at no time: the key is destroyed.",
    response_model=Customer,
    responses={
        200: {"description": "The customer", "headers": answer_headers(ETAG_EXAMPLE) | PARKED_HEADER},
        **NOT_MODIFIED,
        **responses(
            *_PROBLEMS,
            TIME_IN_THE_FUTURE,
            (404, "customer-not-found", "There is no such customer, or was none then, or the caller is another one."),
            *UNREADABLE,
        ),
    },
    openapi_extra={"parameters": [*TIMES, *TOKEN_HEADERS, IF_NONE_MATCH]},
)
@allowed(*READERS)
async def get_customer(request: Request, customer_id: CustomerId) -> Response:
    check_owner(request.scope, "customer", customer_id)
    opened = partial(open_customer, request.app.state.subject_keys)
    return await documents.answer_document(request, CUSTOMER, CUSTOMERS, customer_id, opened)


@router.get(
    "/customers/{customer_id}/erasure",
    summary="What is left of an erased customer",
    description="Of the last erasure under this id. `found` is 0 everywhere, unless a backup brought a destroyed key"
    " back. What backups and receivers of data have is beyond this search.",
    response_model=ErasureReport,
    responses={
        200: {"description": "The report", "headers": answer_headers()},
        **responses(*_PROBLEMS, (CustomerNotErased(), "No customer under this id was erased.")),
    },
    openapi_extra={"parameters": TOKEN_HEADERS},
)
@allowed(Role.PRIVACY, Role.AUDITOR)
async def get_erasure(request: Request, customer_id: CustomerId) -> Response:
    keys: SubjectKeyCache = request.app.state.subject_keys
    _, found, headers = await answer(
        request, CUSTOMERS, lambda customers, at_least: customers.one(customer_id, at_least)
    )
    erasure = await keys.erasure_of(CUSTOMER.stream_of(customer_id), CustomerErased.__name__, customer_id)
    if erasure is None:
        raise CustomerNotErased
    shown = [key_id.decode() for key_id in _KEY_IDS.findall(found.body or b"")]
    stores = {
        "keys": (len(erasure.key_ids), len(erasure.existing_key_ids)),
        "events": (erasure.sealed_values, erasure.openable_values),
        "read model": (len(shown), sum([key_id in erasure.key_ids for key_id in shown])),
        "cached keys": (len(keys), sum([key_id in keys for key_id in erasure.key_ids])),
    }
    report = {
        "customer_id": customer_id,
        "erased_at": erasure.at,
        "position": erasure.position,
        "stores": [{"store": store, "searched": searched, "found": left} for store, (searched, left) in stores.items()],
    }
    return Response(msgspec.json.encode(report), headers=headers, media_type="application/json")


CUSTOMERS = ReadModel(
    name="customers",
    store=in_redis,
    reader=CustomersReader,
    router=router,
    tag="customers",
    tag_description="Customers, opened where they leave.",
)
