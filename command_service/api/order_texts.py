"""Seals what commands on orders say about a person with the key of the order's customer."""

from __future__ import annotations

from fastapi import Request

from command_service.domain.customer import CustomerIsErased
from shared.aggregates.address import Address, change_texts
from shared.aggregates.customer import CUSTOMER
from shared.aggregates.order import ORDER
from shared.aggregates.order.personal_texts import REASON
from shared.http.openapi import Described
from shared.identity.access import limited_to_owner
from shared.privacy.sealed import SubjectKey
from shared.privacy.subject_key_cache import SubjectKeyCache
from shared.privacy.subject_keys import NO_SECRET, SubjectKeysUnavailable

NO_KEYS: Described = (SubjectKeysUnavailable(NO_SECRET), "The keys of personal data cannot be read; nothing was done.")
ERASED: Described = (CustomerIsErased("tour"), "The customer was erased: nothing about the person can be kept.")


async def key_of_customer(request: Request, customer_id: str) -> SubjectKey:
    """Of the customer of an order, who need not be registered. Raises `SubjectKeysUnavailable`."""
    subject = CUSTOMER.stream_of(customer_id)
    if limited_to_owner(request.scope) not in (None, customer_id):
        return SubjectKey.throwaway(subject)  # the command is refused
    keys: SubjectKeyCache = request.app.state.cached_keys
    return await keys.current_or_first(subject) or SubjectKey.of_erased(subject)


async def key_of_order(request: Request, order_id: str) -> SubjectKey:
    """Of its customer. Raises `SubjectKeysUnavailable`."""
    keys = request.app.state.subject_keys
    stream_id = ORDER.stream_of(order_id)
    owner = await keys.owner_of(stream_id)
    return SubjectKey.throwaway(stream_id) if owner is None else await key_of_customer(request, owner)


async def seal_reason(request: Request, order_id: str, reason: str) -> str:
    """Raises `SubjectKeysUnavailable`."""
    return (await key_of_order(request, order_id)).seal(REASON, reason)


def seal_address(key: SubjectKey, address: Address) -> Address:
    return change_texts(address, key.seal)
