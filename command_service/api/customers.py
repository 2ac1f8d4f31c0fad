"""The commands on a customer. Texts about the person are sealed here, before anything else is done with them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError
from starlette.responses import Response
from uuid_utils import uuid7

from command_service.api.bodies import AddressBody, CommandBody, ShortText, Text
from command_service.api.commands import ANY_CHANGE, STALE, CommandRoute, carry_out, describe
from command_service.api.order_texts import NO_KEYS
from command_service.domain import customer
from command_service.domain.card_numbers import has_card_number
from command_service.domain.customer import MAX_ADDRESSES, MAX_PAYMENT_METHODS
from shared.aggregates.address import change_texts
from shared.aggregates.customer import CUSTOMER, ErasureReason, PaymentMethod
from shared.http.fields import Id
from shared.http.form_errors import format_of
from shared.http.openapi import Described
from shared.identity.access import allowed, check_owner, limited_to_owner
from shared.identity.caller import ForeignOwner, Role
from shared.privacy.sealed import SubjectKey
from shared.privacy.subject_keys import SubjectKeys

DESCRIPTION = (
    "Profile, addresses and payment methods. What they say about a person is sealed, until the person is erased."
)
router = APIRouter(tags=["customers"], route_class=CommandRoute)

# --- bodies --------------------------------------------------------------------------------------------------------


def _no_card_number(text: str) -> str:
    if has_card_number(text):
        raise PydanticCustomError("card-number", "This may be the number of a card. Give the provider's token for it.")
    return text


_WithoutCardNumber = AfterValidator(_no_card_number)

Email = Annotated[
    str,
    StringConstraints(
        pattern=format_of(
            r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+$",
            "not-an-email",
            "Give an e-mail address, such as ada@example.org.",
        ),
        max_length=254,
    ),
]
Locale = Annotated[
    str,
    StringConstraints(
        pattern=format_of(
            r"^[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*$", "not-a-locale", "Give a language tag, such as en or en-GB."
        ),
        max_length=35,
    ),
]
Last4 = Annotated[
    str, StringConstraints(pattern=format_of(r"^[0-9]{4}$", "not-four-digits", "Give the last four digits."))
]
Month = Annotated[
    str,
    StringConstraints(
        pattern=format_of(r"^[0-9]{4}-(?:0[1-9]|1[0-2])$", "not-a-month", "Give year and month, such as 2027-09.")
    ),
]
PaymentText = Annotated[ShortText, _WithoutCardNumber]
PaymentToken = Annotated[Text, _WithoutCardNumber]


class RegisterCustomerBody(CommandBody):
    customer_id: Id | None = Field(None, description="yours, or we make one", examples=["17850"])
    name: Text = Field(examples=["Ada Lovelace"])
    email: Email = Field(examples=["ada@example.org"])
    phone: ShortText | None = Field(None, examples=["+44 20 7946 0000"])
    locale: Locale | None = Field(None, examples=["en-GB"])


class ChangeCustomerProfileBody(CommandBody):
    name: Text | None = Field(None, description="null or left out: as it is", examples=["Ada King"])
    phone: ShortText | None = Field(None, description="null: none; left out: as it is", examples=["+44 20 7946 0001"])
    locale: Locale | None = Field(None, description="null: none; left out: as it is", examples=["en-GB"])

    def changes(self, key: SubjectKey) -> dict[str, str | None]:
        given = {name: getattr(self, name) for name in ("name", "phone", "locale") if name in self.model_fields_set}
        return {
            name: None if text is None else key.seal(name, text)
            for name, text in given.items()
            if text is not None or name != "name"
        }


class ChangeCustomerEmailBody(CommandBody):
    email: Email = Field(examples=["ada.king@example.org"])


class SaveAddressBody(AddressBody, CommandBody):
    pass


class SavePaymentMethodBody(CommandBody):
    """The token of a payment provider, never the number of a card."""

    provider: PaymentText = Field(examples=["payments.example"])
    token: PaymentToken = Field(examples=["tok_visa_tour"])
    brand: PaymentText | None = Field(None, examples=["Visa"])
    last4: Last4 | None = Field(None, examples=["4242"])
    expires: Month | None = Field(None, examples=["2027-09"])

    def payment_method(self) -> PaymentMethod:
        return PaymentMethod(self.provider, self.token, self.brand, self.last4, self.expires)


class EraseCustomerBody(CommandBody):
    reason: ErasureReason = Field(examples=["customer-request"])


# --- routes --------------------------------------------------------------------------------------------------------

CustomerId = Annotated[Id, Path(description="as given or made at registration", examples=["ada"])]
AddressId = Annotated[Id, Path(description="yours", examples=["home"])]
PaymentMethodId = Annotated[Id, _WithoutCardNumber, Path(description="yours", examples=["visa"])]

_TOUR = "tour"
_ERASED: Described = (customer.CustomerIsErased(_TOUR), "The customer was erased.")
_NOT_FOUND: Described = (customer.CustomerNotFound(_TOUR), "There is no such customer, or the caller is another one.")
_ANY_CHANGE: tuple[Described, ...] = (_NOT_FOUND, _ERASED, *ANY_CHANGE)
_WRITERS = (Role.CUSTOMER, Role.STAFF, Role.SERVICE)


@router.post(
    "/customers",
    summary="Register a customer",
    **describe(
        (customer.CustomerAlreadyRegistered(_TOUR), "There is a customer with this id."),
        (customer.CustomerIsErased(_TOUR), "The customer is being erased; try again."),
        (ForeignOwner("customer", "13047"), "The caller is another customer."),
        STALE,
        NO_KEYS,
        status=201,
    ),
)
@allowed(*_WRITERS)
async def register_customer(request: Request, body: RegisterCustomerBody) -> Response:
    """Without `customer_id` we make one; the acknowledgement names it. An id whose customer was erased may be
    registered anew: nothing of the person before is shown again."""
    customer_id = body.customer_id or limited_to_owner(request.scope) or str(uuid7())
    check_owner(request.scope, "customer", customer_id)
    key = await _keys(request).begin(CUSTOMER.stream_of(customer_id))
    command = customer.RegisterCustomer(
        customer_id,
        key.seal("name", body.name),
        key.seal("email", body.email),
        None if body.phone is None else key.seal("phone", body.phone),
        None if body.locale is None else key.seal("locale", body.locale),
    )
    return await carry_out(request, command, body, created_under="/customers")


@router.patch("/customers/{customer_id}", summary="Change the profile", **describe(*_ANY_CHANGE, NO_KEYS))
@allowed(*_WRITERS)
async def change_customer_profile(
    request: Request, customer_id: CustomerId, body: ChangeCustomerProfileBody
) -> Response:
    """Name, phone and locale. What it has already changes nothing."""
    key = await _key_of(request, customer_id)
    command = customer.ChangeCustomerProfile(customer_id, body.changes(key))
    return await carry_out(request, command, body)


@router.put("/customers/{customer_id}/email", summary="Change the e-mail address", **describe(*_ANY_CHANGE, NO_KEYS))
@allowed(*_WRITERS)
async def change_customer_email(request: Request, customer_id: CustomerId, body: ChangeCustomerEmailBody) -> Response:
    """The address it has already changes nothing."""
    key = await _key_of(request, customer_id)
    return await carry_out(request, customer.ChangeCustomerEmail(customer_id, key.seal("email", body.email)), body)


@router.put(
    "/customers/{customer_id}/addresses/{address_id}",
    summary="Save an address",
    **describe(
        *_ANY_CHANGE,
        (customer.TooManyAddresses(_TOUR, MAX_ADDRESSES), f"The customer has {MAX_ADDRESSES} addresses."),
        NO_KEYS,
    ),
)
@allowed(*_WRITERS)
async def save_address(
    request: Request, customer_id: CustomerId, address_id: AddressId, body: SaveAddressBody
) -> Response:
    """New, or instead of the one with this id."""
    key = await _key_of(request, customer_id)
    command = customer.SaveAddress(customer_id, address_id, change_texts(body.address(), key.seal))
    return await carry_out(request, command, body)


@router.delete(
    "/customers/{customer_id}/addresses/{address_id}",
    summary="Remove an address",
    **describe(*_ANY_CHANGE, (customer.AddressNotFound(_TOUR, "home"), "The customer has no such address.")),
)
@allowed(*_WRITERS)
async def remove_address(request: Request, customer_id: CustomerId, address_id: AddressId) -> Response:
    """Orders keep theirs."""
    check_owner(request.scope, "customer", customer_id)
    return await carry_out(request, customer.RemoveAddress(customer_id, address_id), None)


@router.put(
    "/customers/{customer_id}/payment-methods/{payment_method_id}",
    summary="Save a payment method",
    **describe(
        *_ANY_CHANGE,
        (
            customer.TooManyPaymentMethods(_TOUR, MAX_PAYMENT_METHODS),
            f"The customer has {MAX_PAYMENT_METHODS} payment methods.",
        ),
        NO_KEYS,
    ),
)
@allowed(*_WRITERS)
async def save_payment_method(
    request: Request, customer_id: CustomerId, payment_method_id: PaymentMethodId, body: SavePaymentMethodBody
) -> Response:
    """New, or instead of the one with this id. Anything that may be the number of a card is refused."""
    key = await _key_of(request, customer_id)
    method = body.payment_method().change_texts(key.seal)
    return await carry_out(request, customer.SavePaymentMethod(customer_id, payment_method_id, method), body)


@router.delete(
    "/customers/{customer_id}/payment-methods/{payment_method_id}",
    summary="Remove a payment method",
    **describe(
        *_ANY_CHANGE, (customer.PaymentMethodNotFound(_TOUR, "visa"), "The customer has no such payment method.")
    ),
)
@allowed(*_WRITERS)
async def remove_payment_method(
    request: Request, customer_id: CustomerId, payment_method_id: PaymentMethodId
) -> Response:
    """Payments that were made with it stay."""
    check_owner(request.scope, "customer", customer_id)
    return await carry_out(request, customer.RemovePaymentMethod(customer_id, payment_method_id), None)


@router.post(
    "/customers/{customer_id}/erasure", summary="Erase the customer", **describe(_NOT_FOUND, *ANY_CHANGE, NO_KEYS)
)
@allowed(Role.PRIVACY)
async def erase_customer(request: Request, customer_id: CustomerId, body: EraseCustomerBody) -> Response:
    """For ever: the key of what is known about the person is destroyed, together with the acknowledged event. Orders
    stay, without the person. A customer who was never registered is erased, too, if there are orders or accounts of the
    id. Of an erased customer it changes nothing."""
    keys = _keys(request)
    owns_streams = await keys.owns_streams(customer_id)
    key_id = await keys.id_to_destroy(CUSTOMER.stream_of(customer_id)) if owns_streams else None
    return await carry_out(request, customer.EraseCustomer(customer_id, body.reason, owns_streams, key_id), body)


def _keys(request: Request) -> SubjectKeys:
    keys: SubjectKeys = request.app.state.subject_keys
    return keys


async def _key_of(request: Request, customer_id: str) -> SubjectKey:
    """Without a key, the customer was never registered or is erased, and the decider refuses the command."""
    check_owner(request.scope, "customer", customer_id)
    subject = CUSTOMER.stream_of(customer_id)
    return await _keys(request).current(subject) or SubjectKey.throwaway(subject)
