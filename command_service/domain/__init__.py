"""The registry of deciders: a new one is a module here and a line at the end of this file."""

from __future__ import annotations

from typing import Any

from command_service.domain.account import ACCOUNTS
from command_service.domain.customer import CUSTOMERS
from command_service.domain.decider import Decider
from command_service.domain.order import ORDERS
from command_service.domain.stock import STOCKS
from shared.aggregates import AGGREGATES, RegistrationError

DECIDERS: dict[type[Any], Decider[Any, Any, Any]] = {}  # by type of command


def register(decider: Decider[Any, Any, Any]) -> None:
    """Adds the commands of an aggregate. Raises `RegistrationError` for an aggregate that is not registered and for a
    command's name that is in use."""
    if AGGREGATES.get(decider.aggregate.category) is not decider.aggregate:
        raise RegistrationError(f"Aggregate {decider.aggregate.category!r} is not registered.")
    names = {command.__name__ for command in DECIDERS}
    for command in decider.commands:
        if command.__name__ in names:
            raise RegistrationError(f"There is a command {command.__name__} already.")
    DECIDERS.update(dict.fromkeys(decider.commands, decider))


register(ORDERS)
register(ACCOUNTS)
register(CUSTOMERS)
register(STOCKS)
