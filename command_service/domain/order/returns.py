"""Decides what comes back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

from command_service.domain.order.commands import ReceiveReturn, RequestReturn, ReturnCommand
from command_service.domain.order.parcel_refusals import (
    ReceiptExceedsReturn,
    ReturnAlreadyRequested,
    ReturnExceedsShipment,
    ReturnNotFound,
)
from command_service.domain.order.pieces import require_available, require_few_lines, require_lines
from command_service.domain.order.refusals import LineNotFound, TooManyEntries
from shared.aggregates.order import LineQuantity, Order, OrderEvent, ReceivedLine, ReturnReceived, ReturnRequested
from shared.aggregates.order.lines import amount_of_pieces, charged_amounts, quantities

MAX_RETURNS = 100


def decide(command: ReturnCommand, state: Order) -> list[OrderEvent]:
    return _request(command, state) if isinstance(command, RequestReturn) else _receive(command, state)


def _request(command: RequestReturn, state: Order) -> list[OrderEvent]:
    for known in state.returns:
        if known.return_id == command.return_id:
            if (command.reason, quantities(command.lines)) != (known.reason, quantities(known.lines)):
                raise ReturnAlreadyRequested(command.order_id, command.return_id)
            return []
    wanted = quantities(command.lines)
    require_lines(command.order_id, state, wanted)
    shipped = quantities(chain.from_iterable(one.lines for one in state.shipments))
    returned = quantities(chain.from_iterable(one.lines for one in state.returns))
    available = {line_id: count - returned.get(line_id, 0) for line_id, count in shipped.items()}
    require_available(command.order_id, ReturnExceedsShipment, available, wanted)
    if len(state.returns) >= MAX_RETURNS:
        raise TooManyEntries(command.order_id, "returns", MAX_RETURNS)
    lines = tuple([LineQuantity(line_id, count) for line_id, count in wanted.items()])
    require_few_lines(command.order_id, "lines in returns", len(lines) + sum(len(one.lines) for one in state.returns))
    return [ReturnRequested(command.return_id, lines, command.reason)]


def _receive(command: ReceiveReturn, state: Order) -> list[OrderEvent]:
    requested = next((one for one in state.returns if one.return_id == command.return_id), None)
    if requested is None:
        raise ReturnNotFound(command.order_id, command.return_id)
    received = _by_fate(command.lines)
    pieces, before = quantities(_pieces(command.lines)), quantities(_pieces(requested.received))
    expected = quantities(requested.lines)
    if before == expected and received == _by_fate(requested.received):
        return []
    for line_id in pieces.keys() - expected.keys():
        raise LineNotFound(command.order_id, line_id)
    available = {line_id: count - before.get(line_id, 0) for line_id, count in expected.items()}
    require_available(command.order_id, ReceiptExceedsReturn, available, pieces)
    lines = tuple([ReceivedLine(line_id, count, restock) for (line_id, restock), count in received.items()])
    # What was given back without a return cannot be owed once more.
    reduction = min(_charged(state, pieces), state.payable)
    return [ReturnReceived(command.return_id, lines, reduction)]


def _charged(state: Order, pieces: Mapping[str, int]) -> int:
    """What was charged for pieces that come back now, after those that came back before."""
    lines = state.lines
    charged = charged_amounts({line_id: line.total for line_id, line in lines.items()}, state.charges).lines
    back = quantities(_pieces(chain.from_iterable(one.received for one in state.returns)))
    return sum(
        amount_of_pieces(charged[line_id], lines[line_id].quantity, back.get(line_id, 0), count)
        for line_id, count in pieces.items()
    )


def _pieces(lines: Iterable[ReceivedLine]) -> list[LineQuantity]:
    return [LineQuantity(line.line_id, line.quantity) for line in lines]


def _by_fate(lines: Iterable[ReceivedLine]) -> dict[tuple[str, bool], int]:
    """Pieces by line and whether they are sold again."""
    found: dict[tuple[str, bool], int] = {}
    for line in lines:
        key = line.line_id, line.restock
        found[key] = found.get(key, 0) + line.quantity
    return found
