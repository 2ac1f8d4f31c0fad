"""The caller of a request, and the roles that decide what it may do. Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import NamedTuple

from shared.errors import Forbidden, NotFound


class Role(StrEnum):
    CUSTOMER = "customer"
    STAFF = "staff"
    FINANCE = "finance"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    PRIVACY = "privacy"
    SERVICE = "service"


_CUSTOMER_ALONE = frozenset({Role.CUSTOMER})
READERS = (Role.STAFF, Role.FINANCE, Role.AUDITOR, Role.SERVICE)  # of what belongs to any owner


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


class ForeignOwner(NotFound):
    """The caller names another owner than itself, who counts as one that does not exist."""

    def __init__(self, noun: str, owner_id: str) -> None:
        self.code = f"{noun}-not-found"  # type: ignore[misc] # the registry names the owners
        self.title = f"There is no such {noun}"  # type: ignore[misc]
        self._owner_id = owner_id

    @property
    def detail(self) -> str:
        return f"{self.title}: {self._owner_id!r}."


class Caller(NamedTuple):
    subject: str  # claim `sub`
    roles: frozenset[Role]
    customer_id: str | None = None  # whose data the role `customer` reaches
    expires_at: float = inf  # Unix time, of its token

    def limited_to(self, allowed: AbstractSet[Role]) -> str | None:
        """The owner whose data the caller may reach on a route for the roles `allowed`; None: that of every owner.

        Raises `RoleMissing` or `CustomerMissing`.
        """
        granted = self.roles & allowed
        if not granted:
            raise RoleMissing(sorted(allowed))
        if granted != _CUSTOMER_ALONE:
            return None
        if self.customer_id is None:
            raise CustomerMissing
        return self.customer_id

    @property
    def actor(self) -> dict[str, object]:
        """How the metadata of events names the caller."""
        return {"sub": self.subject, "roles": sorted(self.roles)}
