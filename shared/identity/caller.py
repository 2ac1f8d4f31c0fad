"""The caller of a request, and the roles that decide what it may do. Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from shared.errors import Forbidden


class Role(StrEnum):
    CUSTOMER = "customer"
    STAFF = "staff"
    FINANCE = "finance"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    PRIVACY = "privacy"
    SERVICE = "service"


@dataclass
class RoleMissing(Forbidden):
    """`allowed` are the roles, sorted, of which the caller needs one."""

    allowed: list[str]
    code = "forbidden"
    title = "The caller may not do this"

    @property
    def detail(self) -> str:
        return f"This needs one of the roles {', '.join(self.allowed)}."


@dataclass
class CustomerMissing(Forbidden):
    code = "forbidden"
    title = "The caller may not do this"

    @property
    def detail(self) -> str:
        return "A token with the role customer alone needs the claim customer_id."


class Caller(NamedTuple):
    subject: str  # claim `sub`
    roles: frozenset[Role]
    customer_id: str | None = None  # whose data the role `customer` reaches

    def limited_to(self, allowed: AbstractSet[Role]) -> str | None:
        """The owner whose data the caller may reach on a route for the roles `allowed`; None: that of every owner.

        Raises `RoleMissing` or `CustomerMissing`.
        """
        granted = self.roles & allowed
        if not granted:
            raise RoleMissing(sorted(allowed))
        if granted != {Role.CUSTOMER}:
            return None
        if self.customer_id is None:
            raise CustomerMissing
        return self.customer_id

    @property
    def actor(self) -> dict[str, object]:
        """How the metadata of events names the caller."""
        return {"sub": self.subject, "roles": sorted(self.roles)}
