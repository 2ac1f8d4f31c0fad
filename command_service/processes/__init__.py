"""The registry of processes: a new one is a module here and a line at the end of this file."""

from __future__ import annotations

from typing import Any

from command_service import domain
from command_service.processes.advance import DEFINITIONS, PROCESSES
from command_service.processes.definition import ProcessDefinition
from command_service.processes.fulfilment import FULFILMENT, ORDER_PAYMENT, ORDER_SHIPPING
from command_service.processes.interventions import INTERVENTIONS
from shared.aggregates import AGGREGATES, RegistrationError


def register(definition: ProcessDefinition[Any, Any]) -> None:
    """Adds a version of a kind of process. Raises `RegistrationError` for a version that is registered, and a subject
    that is not."""
    if AGGREGATES.get(definition.subject.category) is not definition.subject:
        raise RegistrationError(f"Aggregate {definition.subject.category!r} is not registered.")
    versions = DEFINITIONS.setdefault(definition.kind, {})
    if definition.version in versions:
        raise RegistrationError(f"Version {definition.version} of process {definition.kind!r} is registered already.")
    versions[definition.version] = definition


domain.register(PROCESSES)
domain.register(INTERVENTIONS)
register(FULFILMENT)
register(ORDER_PAYMENT)
register(ORDER_SHIPPING)

# By the ways in which orders can be fulfilled: kinds of processes.
FULFILMENTS = {"orchestrated": (FULFILMENT.kind,), "choreographed": (ORDER_PAYMENT.kind, ORDER_SHIPPING.kind)}


def begun_kinds(fulfilment: str) -> frozenset[str]:
    """Of the processes that begin: those of this way in which orders are fulfilled, and all that fulfil none."""
    of_orders = {kind for kinds in FULFILMENTS.values() for kind in kinds}
    return frozenset(FULFILMENTS[fulfilment]) | (DEFINITIONS.keys() - of_orders)
