"""The customer: its commands, its refusals, and every rule that decides. Pure. Texts about the person are sealed, all
with one key; state and `evolve` are in `shared/aggregates/customer.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, assert_never, get_args

import msgspec

from command_service.domain.decider import Decider
from shared.aggregates.address import Address
from shared.aggregates.customer import (
    CUSTOMER,
    AddressRemoved,
    AddressSaved,
    Customer,
    CustomerEmailChanged,
    CustomerErased,
    CustomerEvent,
    CustomerProfileChanged,
    CustomerRegistered,
    ErasureReason,
    PaymentMethod,
    PaymentMethodRemoved,
    PaymentMethodSaved,
    State,
)
from shared.errors import Invalid, NotFound, Rejected
from shared.privacy.sealed import key_id_of

MAX_ADDRESSES = 20
MAX_PAYMENT_METHODS = 20


# --- commands ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RegisterCustomer:
    customer_id: str
    name: str
    email: str
    phone: str | None = None
    locale: str | None = None


@dataclass(frozen=True, slots=True)
class ChangeCustomerProfile:
    """`changes` has what changes: name, phone, locale."""

    customer_id: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChangeCustomerEmail:
    customer_id: str
    email: str


@dataclass(frozen=True, slots=True)
class SaveAddress:
    customer_id: str
    address_id: str
    address: Address


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    customer_id: str
    address_id: str


@dataclass(frozen=True, slots=True)
class SavePaymentMethod:
    customer_id: str
    payment_method_id: str
    payment_method: PaymentMethod


@dataclass(frozen=True, slots=True)
class RemovePaymentMethod:
    customer_id: str
    payment_method_id: str


@dataclass(frozen=True, slots=True)
class EraseCustomer:
    """`owns_streams`: there are orders or accounts of the id, which may never have been registered. `key_id` is that of
    the key that is to be destroyed, if there is one."""

    customer_id: str
    reason: ErasureReason
    owns_streams: bool = False
    key_id: str | None = None


CustomerCommand = (
    RegisterCustomer
    | ChangeCustomerProfile
    | ChangeCustomerEmail
    | SaveAddress
    | RemoveAddress
    | SavePaymentMethod
    | RemovePaymentMethod
    | EraseCustomer
)


# --- refusals ------------------------------------------------------------------------------------------------------


@dataclass
class CustomerNotFound(NotFound):
    customer_id: str
    code = "customer-not-found"
    title = "There is no such customer"

    @property
    def detail(self) -> str:
        return f"There is no such customer: {self.customer_id!r}."


@dataclass
class CustomerAlreadyRegistered(Rejected):
    customer_id: str
    code = "customer-already-registered"
    title = "The customer is registered already"

    @property
    def detail(self) -> str:
        return f"Customer {self.customer_id} is registered already."


@dataclass
class CustomerIsErased(Rejected):
    customer_id: str
    code = "customer-erased"
    title = "The customer was erased"

    @property
    def detail(self) -> str:
        return f"Customer {self.customer_id} was erased. Only a new registration can follow."


@dataclass
class NoPaymentMethod(Rejected):
    customer_id: str
    code = "no-payment-method"
    title = "The customer has no payment method"

    @property
    def detail(self) -> str:
        return f"Customer {self.customer_id} has no payment method. Save one before the order."


@dataclass
class AddressNotFound(NotFound):
    customer_id: str
    address_id: str
    code = "address-not-found"
    title = "The customer has no such address"

    @property
    def detail(self) -> str:
        return f"Customer {self.customer_id} has no address {self.address_id}."


@dataclass
class PaymentMethodNotFound(NotFound):
    customer_id: str
    payment_method_id: str
    code = "payment-method-not-found"
    title = "The customer has no such payment method"

    @property
    def detail(self) -> str:
        return f"Customer {self.customer_id} has no payment method {self.payment_method_id}."


@dataclass
class TooManyAddresses(Invalid):
    customer_id: str
    maximum: int
    code = "too-many-addresses"
    title = "The customer has too many addresses"

    @property
    def detail(self) -> str:
        return f"Customer {self.customer_id} may have at most {self.maximum} addresses."


@dataclass
class TooManyPaymentMethods(Invalid):
    customer_id: str
    maximum: int
    code = "too-many-payment-methods"
    title = "The customer has too many payment methods"

    @property
    def detail(self) -> str:
        return f"Customer {self.customer_id} may have at most {self.maximum} payment methods."


# --- decide --------------------------------------------------------------------------------------------------------


def decide(command: CustomerCommand, state: State) -> list[CustomerEvent]:
    """The events that the command leads to. Raises one of the refusals."""
    if isinstance(command, RegisterCustomer):
        return _register(command, state)
    if isinstance(command, EraseCustomer):
        return _erase(command, state)
    if state is None:
        raise CustomerNotFound(command.customer_id)
    _check_key(command, state)
    match command:
        case ChangeCustomerProfile():
            return _change_profile(command, state)
        case ChangeCustomerEmail(email=email):
            return [] if email == state.email else [CustomerEmailChanged(email)]
        case SaveAddress():
            return _save_address(command, state)
        case SavePaymentMethod():
            return _save_payment_method(command, state)
        case RemoveAddress():
            return _remove_address(command, state)
        case RemovePaymentMethod():
            return _remove_payment_method(command, state)
        case _:
            assert_never(command)


def check_can_order(customer_id: str, state: State) -> None:
    """Raises `CustomerNotFound`, `CustomerIsErased` and `NoPaymentMethod`."""
    if state is None:
        raise CustomerNotFound(customer_id)
    if state.erased:
        raise CustomerIsErased(customer_id)
    if not state.payment_methods:
        raise NoPaymentMethod(customer_id)


def _register(command: RegisterCustomer, state: State) -> list[CustomerEvent]:
    if state is not None:
        if not state.erased:
            raise CustomerAlreadyRegistered(command.customer_id)
        if key_id_of(command.name) == state.key_id:  # sealed while the person before was being erased
            raise CustomerIsErased(command.customer_id)
    return [CustomerRegistered(command.customer_id, command.name, command.email, command.phone, command.locale)]


def _erase(command: EraseCustomer, state: State) -> list[CustomerEvent]:
    if state is None and not command.owns_streams:
        raise CustomerNotFound(command.customer_id)
    if state is not None and state.erased and command.key_id in (None, state.key_id):
        return []
    return [CustomerErased(command.customer_id, command.reason, command.key_id)]


def _change_profile(command: ChangeCustomerProfile, state: Customer) -> list[CustomerEvent]:
    changed = replace(state, **command.changes)
    if changed == state:
        return []
    assert changed.name is not None, "only an erased customer has no name"
    return [CustomerProfileChanged(changed.name, changed.phone, changed.locale)]


def _save_address(command: SaveAddress, state: Customer) -> list[CustomerEvent]:
    known = state.addresses.get(command.address_id)
    if known == command.address:
        return []
    if known is None and len(state.addresses) >= MAX_ADDRESSES:
        raise TooManyAddresses(command.customer_id, MAX_ADDRESSES)
    return [AddressSaved(command.address_id, command.address)]


def _remove_address(command: RemoveAddress, state: Customer) -> list[CustomerEvent]:
    if command.address_id not in state.addresses:
        raise AddressNotFound(command.customer_id, command.address_id)
    return [AddressRemoved(command.address_id)]


def _remove_payment_method(command: RemovePaymentMethod, state: Customer) -> list[CustomerEvent]:
    if command.payment_method_id not in state.payment_methods:
        raise PaymentMethodNotFound(command.customer_id, command.payment_method_id)
    return [PaymentMethodRemoved(command.payment_method_id)]


def _save_payment_method(command: SavePaymentMethod, state: Customer) -> list[CustomerEvent]:
    known = state.payment_methods.get(command.payment_method_id)
    if known == command.payment_method:
        return []
    if known is None and len(state.payment_methods) >= MAX_PAYMENT_METHODS:
        raise TooManyPaymentMethods(command.customer_id, MAX_PAYMENT_METHODS)
    return [PaymentMethodSaved(command.payment_method_id, command.payment_method)]


def _check_key(command: CustomerCommand, state: Customer) -> None:
    """What was sealed for the person before an erasure is not kept for the one after it. Raises `CustomerIsErased`."""
    if state.erased or any(
        key_id_of(text) not in (None, state.key_id) for text in _texts(msgspec.to_builtins(command))
    ):
        raise CustomerIsErased(command.customer_id)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _customer_id(command: CustomerCommand) -> str:
    return command.customer_id


CUSTOMERS: Decider[CustomerCommand, Customer, CustomerEvent] = Decider(
    aggregate=CUSTOMER,
    commands=get_args(CustomerCommand),
    aggregate_id=_customer_id,
    decide=decide,
    begins=frozenset({RegisterCustomer}),
)
