"""Order fulfilment: authorise, wait out a review, capture, ship, track, done. Pure.

As a process manager it is one process; by choreography it is two, of the money and of the parcels.

It compares what it sees of the order, and what its gateways answered, with what is missing, and asks for the next
thing. So a change of the order at any moment, such as a cancellation, needs no path of its own. One effect is under way
at a time, but for the tracking of several parcels.

Nothing leaves before the order records the parcel: from then on it cannot be cancelled. Stock is reserved, taken out
and released by the commands on the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from command_service.gateways import carrier, payment
from command_service.processes.definition import Output, ProcessDefinition
from command_service.processes.fulfilment.reactions import orchestrate, pay, reacting, ship
from command_service.processes.fulfilment.state import Fulfilment, OrderView, compensable, evolve, view
from shared.aggregates.order import ORDER, OrderPlaced


def _definition(kind: str, step: Callable[[Fulfilment], Sequence[Output]]) -> ProcessDefinition[Fulfilment, OrderView]:
    return ProcessDefinition(
        kind=kind,
        subject=ORDER,
        begins=frozenset({OrderPlaced}),
        view=view,
        view_type=OrderView,
        effects={**payment.ANSWERS, **carrier.ANSWERS},
        evolve=evolve,
        react=reacting(step),
        compensable=compensable,
    )


FULFILMENT = _definition("fulfilment", orchestrate)
# The same by choreography: two processes that see the order, and not each other.
ORDER_PAYMENT = _definition("order_payment", pay)
ORDER_SHIPPING = _definition("order_shipping", ship)
