"""The customer: its events, state and document. Pure.

Every text that says something about the person is sealed where it enters: here it is `sealed:1:…`, which is never
opened. Erasing a customer destroys its key; the stream goes on, and the id may be registered anew, with another key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar, assert_never, get_args

import msgspec

from shared.aggregates.address import Address, change_texts
from shared.aggregates.aggregate import Aggregate, DocumentFold, Owner
from shared.privacy.sealed import SubjectKey, key_id_of

T = TypeVar("T")


class ErasureReason(StrEnum):
    """A choice, because a free text would say something about the person, and stay."""

    CUSTOMER_REQUEST = "customer-request"
    CONSENT_WITHDRAWN = "consent-withdrawn"
    RETENTION_ENDED = "retention-ended"
    OTHER = "other"


class PaymentMethod(msgspec.Struct, frozen=True, omit_defaults=True):
    """All sealed."""

    provider: str
    token: str
    brand: str | None = None
    last4: str | None = None
    expires: str | None = None

    def change_texts(self, change: Callable[[str, str], str]) -> PaymentMethod:
        """With each text changed. `change` gets the field's name, such as `payment_method.token`, and the text."""

        def changed(field: str, text: str | None) -> str | None:
            return None if text is None else change(f"payment_method.{field}", text)

        return PaymentMethod(
            change("payment_method.provider", self.provider),
            change("payment_method.token", self.token),
            changed("brand", self.brand),
            changed("last4", self.last4),
            changed("expires", self.expires),
        )


class CustomerRegistered(msgspec.Struct, frozen=True):
    """Of an erased customer, the first event of another person under the id."""

    customer_id: str
    name: str  # sealed
    email: str  # sealed
    phone: str | None = None  # sealed
    locale: str | None = None  # sealed


class CustomerProfileChanged(msgspec.Struct, frozen=True):
    """The profile from now on."""

    name: str  # sealed
    phone: str | None  # sealed
    locale: str | None  # sealed


class CustomerEmailChanged(msgspec.Struct, frozen=True):
    email: str  # sealed


class AddressSaved(msgspec.Struct, frozen=True):
    address_id: str
    address: Address  # sealed, but for its country


class AddressRemoved(msgspec.Struct, frozen=True):
    address_id: str


class PaymentMethodSaved(msgspec.Struct, frozen=True):
    payment_method_id: str
    payment_method: PaymentMethod


class PaymentMethodRemoved(msgspec.Struct, frozen=True):
    payment_method_id: str


class CustomerErased(msgspec.Struct, frozen=True, omit_defaults=True):
    """The database destroys the customer's key when it appends this event (migrations/0011_subject_keys.sql). The first
    event of a customer who was never registered, but has orders. `key_id` is that of the key: a registration that was
    sealed with it and comes later is refused."""

    customer_id: str
    reason: ErasureReason
    key_id: str | None = None


CustomerEvent = (
    CustomerRegistered
    | CustomerProfileChanged
    | CustomerEmailChanged
    | AddressSaved
    | AddressRemoved
    | PaymentMethodSaved
    | PaymentMethodRemoved
    | CustomerErased
)


@dataclass(frozen=True, slots=True)
class Customer:
    """Of an erased customer, the id and the key's are left."""

    customer_id: str
    key_id: str  # that its values are sealed with, or were before the erasure
    name: str | None
    email: str | None
    phone: str | None = None
    locale: str | None = None
    addresses: dict[str, Address] = field(default_factory=dict)
    payment_methods: dict[str, PaymentMethod] = field(default_factory=dict)
    erased: bool = False


State = Customer | None  # None: never registered


def evolve(state: State, event: CustomerEvent) -> Customer:
    """The state after the event."""
    if isinstance(event, CustomerRegistered):
        key_id = key_id_of(event.name) or ""
        return Customer(event.customer_id, key_id, event.name, event.email, event.phone, event.locale)
    if isinstance(event, CustomerErased):
        key_id = event.key_id or ("" if state is None else state.key_id)
        return Customer(event.customer_id, key_id, None, None, erased=True)
    assert state is not None, "a customer's stream begins with CustomerRegistered or CustomerErased"
    match event:
        case CustomerProfileChanged(name, phone, locale):
            return replace(state, name=name, phone=phone, locale=locale)
        case CustomerEmailChanged(email):
            return replace(state, email=email)
        case AddressSaved(address_id, address):
            return replace(state, addresses={**state.addresses, address_id: address})
        case AddressRemoved(address_id):
            return replace(state, addresses=_without(state.addresses, address_id))
        case PaymentMethodSaved(payment_method_id, payment_method):
            return replace(state, payment_methods={**state.payment_methods, payment_method_id: payment_method})
        case PaymentMethodRemoved(payment_method_id):
            return replace(state, payment_methods=_without(state.payment_methods, payment_method_id))
        case _:
            assert_never(event)


def _without(saved: dict[str, T], key: str) -> dict[str, T]:
    return {name: value for name, value in saved.items() if name != key}


# --- document ------------------------------------------------------------------------------------------------------


class CustomerStatus(StrEnum):
    REGISTERED = "registered"
    ERASED = "erased"


class CustomerDocument(msgspec.Struct, frozen=True):
    """What `GET /customers/{customer_id}` shows once its texts are opened. Of an erased customer it shows no person."""

    customer_id: str
    status: CustomerStatus
    name: str | None
    email: str | None
    phone: str | None
    locale: str | None
    addresses: dict[str, Address]
    payment_methods: dict[str, PaymentMethod]
    registered_at: datetime | None
    erased_at: datetime | None
    last_event_at: datetime
    version: int


def fold(
    customer_id: str, document: CustomerDocument | None, event: CustomerEvent, version: int, at: datetime
) -> CustomerDocument:
    """The document after the event."""
    before = None
    if document is not None:
        before = Customer(
            customer_id,
            "",
            document.name,
            document.email,
            document.phone,
            document.locale,
            document.addresses,
            document.payment_methods,
        )
    after = evolve(before, event)
    registered_at = None if document is None else document.registered_at
    if isinstance(event, CustomerRegistered):
        registered_at = at
    return CustomerDocument(
        customer_id=customer_id,
        status=CustomerStatus.ERASED if after.erased else CustomerStatus.REGISTERED,
        name=after.name,
        email=after.email,
        phone=after.phone,
        locale=after.locale,
        addresses=after.addresses,
        payment_methods=after.payment_methods,
        registered_at=registered_at,
        erased_at=at if isinstance(event, CustomerErased) else None,
        last_event_at=at,
        version=version,
    )


def opened(document: CustomerDocument, key: SubjectKey | None) -> CustomerDocument:
    """The document with its texts opened; without a person where their key was destroyed."""
    if key is None or document.name is None or document.email is None:
        unknown = {"name": None, "email": None, "phone": None, "locale": None}
        return msgspec.structs.replace(document, **unknown, addresses={}, payment_methods={})
    addresses = {name: change_texts(address, key.open) for name, address in document.addresses.items()}
    methods = {name: method.change_texts(key.open) for name, method in document.payment_methods.items()}
    return msgspec.structs.replace(
        document,
        name=key.open("name", document.name),
        email=key.open("email", document.email),
        phone=None if document.phone is None else key.open("phone", document.phone),
        locale=None if document.locale is None else key.open("locale", document.locale),
        addresses=addresses,
        payment_methods=methods,
    )


_SEALED = "sealed:1:bXkga2V5IGlkIDEy:3q2-7wEjRWeJq83vASNFZw"

CUSTOMER: Aggregate[Customer, CustomerEvent] = Aggregate(
    category="customer",
    state=Customer,
    events=get_args(CustomerEvent),
    evolve=evolve,
    owner=Owner("customer", "customers", (CustomerRegistered, CustomerErased), "customer_id"),
    document_fold=DocumentFold(CustomerDocument, fold),
    example=CustomerRegistered("17850", _SEALED, _SEALED),
    example_id="ada",
)
