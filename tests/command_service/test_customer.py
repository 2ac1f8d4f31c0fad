"""The rules of customers. Texts are sealed with the key of the person: `ADA` before an erasure, `EVE` after it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import pytest

from command_service.domain.customer import (
    MAX_ADDRESSES,
    MAX_PAYMENT_METHODS,
    AddressNotFound,
    ChangeCustomerEmail,
    ChangeCustomerProfile,
    CustomerAlreadyRegistered,
    CustomerCommand,
    CustomerIsErased,
    CustomerNotFound,
    EraseCustomer,
    PaymentMethodNotFound,
    RegisterCustomer,
    RemoveAddress,
    RemovePaymentMethod,
    SaveAddress,
    SavePaymentMethod,
    TooManyAddresses,
    TooManyPaymentMethods,
    decide,
)
from shared.aggregates.address import Address, change_texts
from shared.aggregates.customer import (
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
    evolve,
)
from shared.errors import OrdersError
from shared.privacy.sealed import SubjectKey

ADA, EVE = (
    SubjectKey(letter * 16, "customer-1", bytes([number]) * 32 + bytes(32)) for number, letter in enumerate("ae")
)


@dataclass(frozen=True)
class _Decision:
    command: CustomerCommand
    state: State

    def then(self, *expected: CustomerEvent) -> State:
        assert decide(self.command, self.state) == [*expected]
        return reduce(evolve, expected, self.state)

    def then_refused(self, error: type[OrdersError]) -> None:
        with pytest.raises(error) as refusal:
            decide(self.command, self.state)
        assert type(refusal.value) is error


@dataclass(frozen=True)
class _Past:
    state: State

    def when(self, command: CustomerCommand) -> _Decision:
        return _Decision(command, self.state)


def given(*events: CustomerEvent) -> _Past:
    nothing: State = None
    return _Past(reduce(evolve, events, nothing))


def registered(key: SubjectKey = ADA) -> CustomerRegistered:
    return CustomerRegistered(
        "1", key.seal("name", "Ada"), key.seal("email", "ada@example.org"), key.seal("phone", "1")
    )


def register(key: SubjectKey = ADA) -> RegisterCustomer:
    event = registered(key)
    return RegisterCustomer("1", event.name, event.email, event.phone)


def address(city: str = "London", key: SubjectKey = ADA) -> Address:
    return change_texts(Address("Ada", ("12 St James's Square",), city, "GB", phone="1"), key.seal)


def method(token: str = "tok", key: SubjectKey = ADA) -> PaymentMethod:
    return PaymentMethod("payments.example", token, last4="4242").change_texts(key.seal)


ERASED = (registered(), CustomerErased("1", ErasureReason.OTHER))


def test_a_customer_is_registered_once() -> None:
    given().when(register()).then(registered())
    given(registered()).when(register()).then_refused(CustomerAlreadyRegistered)


def test_the_profile_changes_by_what_is_given() -> None:
    before = registered()
    name = ADA.seal("name", "Ada King")
    changed = CustomerProfileChanged(name, before.phone, None)
    given(before).when(ChangeCustomerProfile("1", {"name": name})).then(changed)
    given(before).when(ChangeCustomerProfile("1", {"phone": None})).then(
        CustomerProfileChanged(before.name, None, None)
    )


def test_what_is_there_already_changes_nothing() -> None:
    email = registered().email
    given(registered()).when(ChangeCustomerProfile("1", {"name": registered().name})).then()
    given(registered()).when(ChangeCustomerProfile("1", {})).then()
    given(registered()).when(ChangeCustomerEmail("1", email)).then()
    given(registered(), AddressSaved("home", address())).when(SaveAddress("1", "home", address())).then()
    given(registered(), PaymentMethodSaved("m", method())).when(SavePaymentMethod("1", "m", method())).then()
    given(*ERASED).when(EraseCustomer("1", ErasureReason.CUSTOMER_REQUEST)).then()


def test_the_email_address_changes() -> None:
    email = ADA.seal("email", "ada.king@example.org")
    given(registered()).when(ChangeCustomerEmail("1", email)).then(CustomerEmailChanged(email))


def test_addresses_are_saved_replaced_and_removed() -> None:
    london, paris = address(), address("Paris")
    state = given(registered()).when(SaveAddress("1", "home", london)).then(AddressSaved("home", london))
    assert state is not None
    assert state.addresses == {"home": london}
    given(registered(), AddressSaved("home", london)).when(SaveAddress("1", "home", paris)).then(
        AddressSaved("home", paris)
    )
    removed = given(registered(), AddressSaved("home", london)).when(RemoveAddress("1", "home"))
    assert removed.then(AddressRemoved("home")) == given(registered()).state
    given(registered()).when(RemoveAddress("1", "home")).then_refused(AddressNotFound)


def test_payment_methods_are_saved_and_removed() -> None:
    given(registered()).when(SavePaymentMethod("1", "m", method())).then(PaymentMethodSaved("m", method()))
    saved = given(registered(), PaymentMethodSaved("m", method()))
    saved.when(SavePaymentMethod("1", "m", method("other"))).then(PaymentMethodSaved("m", method("other")))
    assert saved.when(RemovePaymentMethod("1", "m")).then(PaymentMethodRemoved("m")) == given(registered()).state
    given(registered()).when(RemovePaymentMethod("1", "m")).then_refused(PaymentMethodNotFound)


@pytest.mark.bound("command", "addresses and payment methods of a customer")
def test_addresses_and_payment_methods_are_bounded() -> None:
    full = given(
        registered(),
        *[AddressSaved(str(number), address()) for number in range(MAX_ADDRESSES)],
        *[PaymentMethodSaved(str(number), method()) for number in range(MAX_PAYMENT_METHODS)],
    )
    full.when(SaveAddress("1", "one more", address())).then_refused(TooManyAddresses)
    full.when(SaveAddress("1", "0", address("Paris"))).then(AddressSaved("0", address("Paris")))
    full.when(SavePaymentMethod("1", "one more", method())).then_refused(TooManyPaymentMethods)


@pytest.mark.parametrize(
    "command",
    [
        ChangeCustomerProfile("1", {"name": ADA.seal("name", "Ada King")}),
        ChangeCustomerEmail("1", ADA.seal("email", "new@example.org")),
        SaveAddress("1", "home", address()),
        RemoveAddress("1", "home"),
        SavePaymentMethod("1", "m", method()),
        RemovePaymentMethod("1", "m"),
        EraseCustomer("1", ErasureReason.OTHER),
    ],
    ids=lambda command: type(command).__name__,
)
def test_what_was_never_registered_or_is_erased_cannot_be_changed(command: CustomerCommand) -> None:
    given().when(command).then_refused(CustomerNotFound)
    if not isinstance(command, EraseCustomer):
        given(*ERASED).when(command).then_refused(CustomerIsErased)


def test_a_customer_with_orders_who_was_never_registered_is_erased() -> None:
    erased = CustomerErased("1", ErasureReason.OTHER)
    state = given().when(EraseCustomer("1", ErasureReason.OTHER, owns_streams=True)).then(erased)
    assert state == Customer("1", "", None, None, erased=True)
    given(erased).when(register(EVE)).then(registered(EVE))
    given(erased).when(ChangeCustomerEmail("1", ADA.seal("email", "ada@example.org"))).then_refused(CustomerIsErased)


def test_a_first_registration_that_was_sealed_before_the_erasure_is_refused() -> None:
    erased = CustomerErased("1", ErasureReason.OTHER, ADA.key_id)
    erase = EraseCustomer("1", ErasureReason.OTHER, owns_streams=True, key_id=ADA.key_id)
    given().when(erase).then(erased)
    given(erased).when(register(ADA)).then_refused(CustomerIsErased)
    given(erased).when(register(EVE)).then(registered(EVE))


def test_an_erasure_again_destroys_a_key_that_came_after_the_first() -> None:
    again = EraseCustomer("1", ErasureReason.OTHER, key_id="of-a-later-key-1")
    given(*ERASED).when(again).then(CustomerErased("1", ErasureReason.OTHER, "of-a-later-key-1"))


def test_of_an_erased_customer_the_ids_are_left() -> None:
    past = given(registered(), AddressSaved("home", address()), PaymentMethodSaved("m", method()))
    state = past.when(EraseCustomer("1", ErasureReason.CUSTOMER_REQUEST)).then(
        CustomerErased("1", ErasureReason.CUSTOMER_REQUEST)
    )
    assert state == Customer("1", ADA.key_id, None, None, erased=True)


def test_an_erased_customer_is_registered_anew_with_another_key() -> None:
    given(*ERASED).when(register(EVE)).then(registered(EVE))


@pytest.mark.promise("privacy", "What was sealed for a person is never kept for the next one under the id")
def test_what_was_sealed_before_an_erasure_is_refused_after_it() -> None:
    given(*ERASED).when(register(ADA)).then_refused(CustomerIsErased)
    anew = given(*ERASED, registered(EVE))
    anew.when(ChangeCustomerEmail("1", ADA.seal("email", "ada@example.org"))).then_refused(CustomerIsErased)
    anew.when(ChangeCustomerProfile("1", {"phone": ADA.seal("phone", "2")})).then_refused(CustomerIsErased)
    anew.when(SaveAddress("1", "home", address())).then_refused(CustomerIsErased)
    anew.when(SavePaymentMethod("1", "m", method())).then_refused(CustomerIsErased)
    anew.when(SaveAddress("1", "home", address(key=EVE))).then(AddressSaved("home", address(key=EVE)))
