"""What holds after every run."""

from __future__ import annotations

import msgspec

from shared.aggregates.order import OrderStatus
from shared.aggregates.process import EffectAnswered, EffectRequested, StepSkipped
from tests.simulation.world import World

_ENDS = {"delivered": OrderStatus.DELIVERED, "cancelled": OrderStatus.CANCELLED}


def check(world: World) -> None:
    """Raises `AssertionError`."""
    assert not world.agenda.stuck, [world.processes_of(order_id) for order_id in world.orders]
    assert not world.agenda.effects(), "an effect has no answer"
    for order_id in world.orders:
        _check_order(world, order_id)
    _check_effects(world)


def _check_order(world: World, order_id: str) -> None:
    order = world.order(order_id)
    assert order is not None
    for process in world.processes_of(order_id):
        assert process is not None
        assert process.outcome in _ENDS, f"{order_id} is {order.status}, a process waits for {process.timers}"
        assert order.status is _ENDS[process.outcome]

    prices = {line_id: line.unit_price for line_id, line in order.lines.items()}
    delivered = [line for parcel in world.carrier.of(order_id, "delivered") for line in parcel.lines]
    kept = world.payments.kept(order_id)
    assert kept == sum([prices[line.line_id] * line.quantity for line in delivered]), f"{order_id}: {kept} kept"
    assert not world.carrier.of(order_id, "booked", "on the way"), f"a parcel of {order_id} is forgotten"
    if order.status is OrderStatus.CANCELLED:
        assert not world.carrier.of(order_id, "delivered", "lost"), f"a parcel of {order_id} left, which is cancelled"
    charges = [charge for charge in world.payments.charges.values() if charge.order_id == order_id]
    assert not sum([charge.reserved for charge in charges]), f"money of {order_id} stays reserved"
    assert (order.paid, order.authorised, order.refund_due) == (kept, 0, 0), "the order's books differ"


def _check_effects(world: World) -> None:
    """Each was recorded and made, and its outcome is what the provider says."""
    ledgers = {**world.payments.outcomes, **world.carrier.outcomes}
    requested, answered = set(), {}
    for stored in world.log:
        if stored.event_type == EffectRequested.__name__:
            requested.add(msgspec.json.decode(stored.data)["effect_id"])
        elif stored.event_type == EffectAnswered.__name__:
            answer = msgspec.json.decode(stored.data)
            assert answer["effect_id"] not in answered, "an effect has two answers"
            answered[answer["effect_id"]] = answer["outcome"], answer["data"]
        elif stored.event_type == StepSkipped.__name__:
            answer = msgspec.json.decode(stored.data)
            requested.add(answer["effect_id"])
            assert answer["effect_id"] not in answered, "an effect has two answers"
            answered[answer["effect_id"]] = answer["outcome"], answer["outcome_data"]
    assert requested == answered.keys() == ledgers.keys()
    for effect_id, outcome in ledgers.items():
        told = type(outcome).__name__, msgspec.json.decode(msgspec.json.encode(outcome))
        assert answered[effect_id] == told
