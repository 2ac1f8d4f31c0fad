"""The refusals of commands on shipments, returns and holds."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import NotFound, Rejected


@dataclass
class OrderOnHold(Rejected):
    order_id: str
    reason: str
    code = "order-on-hold"
    title = "The order is on hold"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} is on hold ({self.reason}); nothing is shipped until it is released."


@dataclass
class OrderNotHoldable(Rejected):
    order_id: str
    order_status: str
    code = "order-not-holdable"
    title = "Nothing of the order is left to hold"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} is {self.order_status}; only a PENDING or CONFIRMED order can be held."


@dataclass
class OrderPartlyShipped(Rejected):
    order_id: str
    shipments: int
    code = "order-partly-shipped"
    title = "A part of the order has left"

    @property
    def detail(self) -> str:
        return f"{self.shipments} shipments of order {self.order_id} have left; it cannot be cancelled any more."


@dataclass
class _QuantityRefused(Rejected):
    """`available` pieces of the line would be accepted."""

    order_id: str
    line_id: str
    available: int
    given: int


class ShipmentExceedsOrder(_QuantityRefused):
    code = "shipment-exceeds-order"
    title = "Less is left to ship"

    @property
    def detail(self) -> str:
        return f"{self.available} pieces of line {self.line_id!r} are left to ship, not {self.given}."


class ReturnExceedsShipment(_QuantityRefused):
    code = "return-exceeds-shipment"
    title = "Less can be returned"

    @property
    def detail(self) -> str:
        return f"{self.available} pieces of line {self.line_id!r} were shipped and not returned, not {self.given}."


class ReceiptExceedsReturn(_QuantityRefused):
    code = "receipt-exceeds-return"
    title = "Less of the return is expected"

    @property
    def detail(self) -> str:
        return f"{self.available} pieces of line {self.line_id!r} are expected from the return, not {self.given}."


@dataclass
class ShipmentNotFound(NotFound):
    order_id: str
    shipment_id: str
    code = "shipment-not-found"
    title = "There is no such shipment of the order"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} has no shipment {self.shipment_id!r}."


@dataclass
class ShipmentAlreadyRecorded(Rejected):
    order_id: str
    shipment_id: str
    code = "shipment-already-recorded"
    title = "The shipment is recorded with other values"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} has shipment {self.shipment_id!r} with other lines, number or carrier."


@dataclass
class ReturnNotFound(NotFound):
    order_id: str
    return_id: str
    code = "return-not-found"
    title = "There is no such return of the order"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} has no return {self.return_id!r}."


@dataclass
class ReturnAlreadyRequested(Rejected):
    order_id: str
    return_id: str
    code = "return-already-requested"
    title = "The return is recorded with other values"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} has return {self.return_id!r} with other lines or another reason."
