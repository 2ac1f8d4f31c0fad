"""Books credit notes on the orders that they take back: a return, its receipt and a refund, by the command service.

Repeating a request is safe: return and refund have the number of the credit note as their id, payment and shipment that
of the order. So an import that was interrupted is continued by the next one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from cli.importer.credit_matching import Booking, Payment, Purchase, Unmatched, match
from cli.importer.online_retail import CreditNote, Reject, address_of
from cli.importer.submitter import NotSettled, Submitter, explain

UNMATCHED = "credit-without-purchase"  # of rejects
WAIT_SECONDS = 10  # for the read models, in each request

_GIVE_QUERY_URL = (
    "Orders that credit notes take back could not be read: give the query service's address as --query-url."
)

T = TypeVar("T")


class CustomerCredits(NamedTuple):
    """The credit notes of a customer, in the order of their times."""

    customer_id: str
    notes: list[CreditNote]

    @classmethod
    def of(cls, notes: Iterable[CreditNote]) -> list[CustomerCredits]:
        by_customer: dict[str, list[CreditNote]] = defaultdict(list)
        for note in sorted(notes, key=lambda note: note.at):
            by_customer[note.customer_id].append(note)
        return [cls(customer_id, theirs) for customer_id, theirs in by_customer.items()]


class _Summary(msgspec.Struct):
    order_id: str


class _Page(msgspec.Struct):
    orders: list[_Summary]
    next_cursor: str | None


class _Refused(Exception):
    def __init__(self, code: str, explanation: str) -> None:
        super().__init__(code, explanation)
        self.code, self.explanation = code, explanation


class ReturnSubmitter(Submitter[CustomerCredits]):
    """Books the credit notes of each customer one after the other, those of several customers at a time."""

    consistency_token = ""  # of the orders that were placed before

    async def _settle(self, client: httpx.AsyncClient, customer: CustomerCredits) -> None:
        products = {line.product_id for note in customer.notes for line in note.lines}
        purchases = [one async for one in self._purchases(client, customer.customer_id, products)]
        for note in customer.notes:
            await self._book_note(client, note, purchases)

    async def _book_note(self, client: httpx.AsyncClient, note: CreditNote, purchases: list[Purchase]) -> None:
        summary = self._summary
        matched = match(note, purchases)
        rejects = [_reject(note, matched.unmatched)] if matched.unmatched else []
        to_book = [booking for booking in matched.bookings if not booking.is_complete(note.number)]
        booked = False
        for booking in to_book:
            try:
                await self._book(client, note, booking)
                booked = True
            except _Refused as error:
                rejects.append(Reject(note.number, _file_lines(note), error.code, error.explanation))
        summary.unmatched += rejects
        summary.credit_notes += 1
        summary.returned += booked
        summary.returned_before += bool(matched.bookings) and not to_book

    async def _book(self, client: httpx.AsyncClient, note: CreditNote, booking: Booking) -> None:
        """The order is paid and shipped first, where it is not: else nothing can come back. Raises `_Refused`."""
        purchase = booking.purchase
        send = partial(self._send, client, f"/orders/{quote(purchase.order_id, safe='')}")
        placed, came_back = {"occurred_at": purchase.placed_at}, {"occurred_at": note.at}
        if purchase.status == "PENDING":
            reference, due = f"import-{purchase.order_id}", purchase.amount_due
            await send("/payment", {"payment_reference": reference, "amount": due, **placed})
            purchase.payments.append(Payment(reference, due, 0))
            purchase.status = "CONFIRMED"
        if purchase.status == "CONFIRMED":
            await send("/shipment", {"tracking_number": f"import-{purchase.order_id}", **placed})
            purchase.status = "SHIPPED"
        lines = [{"line_id": line_id, "quantity": count} for line_id, count in booking.pieces.items()]
        reason = f"credit note {note.number}"
        await send("/returns", {"return_id": note.number, "lines": lines, "reason": reason, **came_back})
        if not purchase.has_return(note.number):
            purchase.returns.append(booking.as_return(note.number))
        # What the shop could not sell again, this data writes off in invoices of its own.
        received = [{**line, "restock": True} for line in lines]
        await send(f"/returns/{quote(note.number, safe='')}/receipt", {"lines": received, **came_back})
        if booking.amount:
            refund = {"refund_id": note.number, "amount": booking.amount, "reason": reason}
            payment = _refundable(purchase, booking.amount)
            await send("/refunds", {**refund, "payment_reference": payment.payment_reference, **came_back})
            payment.amount_refunded += booking.amount

    async def _send(self, client: httpx.AsyncClient, order_path: str, path: str, body: dict[str, Any]) -> None:
        """Raises `_Refused`."""
        url = self._command_url + order_path + path
        answer = await self._answer(partial(client.post, url, content=msgspec.json.encode(body)))
        if not answer.is_success:
            problem = self._refusal(answer, url)
            raise _Refused(problem.code, f"{order_path}{path}: {explain(answer)}")
        self._note_progress()

    async def _purchases(
        self, client: httpx.AsyncClient, customer_id: str, products: set[str]
    ) -> AsyncIterator[Purchase]:
        """The customer's orders of any of the products that an import placed, with their lines of these."""
        cursor: str | None = None
        while True:
            path = f"/customers/{quote(customer_id, safe='')}/orders"
            page = await self._read(client, path, _Page, {"limit": "100", **({"cursor": cursor} if cursor else {})})
            for summary in page.orders:
                purchase = await self._read(client, f"/orders/{quote(summary.order_id, safe='')}", Purchase, {})
                purchase.items = [item for item in purchase.items if item.product_id in products]
                if purchase.items and purchase.shipping_address_id == address_of(customer_id):
                    yield purchase
            if (cursor := page.next_cursor) is None:
                return

    async def _read(self, client: httpx.AsyncClient, path: str, as_type: type[T], params: dict[str, str]) -> T:
        """Raises `NotSettled` where the query service does not answer."""
        headers = {"Prefer": f"wait={WAIT_SECONDS}"}
        if self.consistency_token:
            headers["Consistency-Token"] = self.consistency_token
        url = self._query_url + path
        answer = await self._answer(partial(client.get, url, params=params, headers=headers))
        try:
            if answer.status_code == httpx.codes.OK:
                self._note_progress()
                return msgspec.json.decode(answer.content, type=as_type)
            self._summary.last_error = f"{url} answered {answer.status_code}: {explain(answer)}"
        except msgspec.DecodeError as error:
            self._summary.last_error = f"{url}: {error}"
        self._summary.advice = _GIVE_QUERY_URL
        raise NotSettled


def _refundable(purchase: Purchase, amount: int) -> Payment:
    """A payment that covers the refund; the last one where none does, which is then refused."""
    left = [one for one in purchase.payments if one.amount_captured - one.amount_refunded >= amount]
    return (left or purchase.payments)[-1]


def _reject(note: CreditNote, unmatched: list[Unmatched]) -> Reject:
    lines = [
        f"line {line.line} takes back {line.quantity} of {line.product_id} for {line.unit_price} pence each,"
        f" {available} of them can come back"
        for line, available in unmatched[:5]
    ]
    bought = f"customer {note.customer_id} bought fewer by then, for as much or more"
    numbers = tuple([line.line for line, _ in unmatched])
    return Reject(note.number, numbers, UNMATCHED, f"{bought}: {'; '.join(lines)}")


def _file_lines(note: CreditNote) -> tuple[int, ...]:
    return tuple(line.line for line in note.lines)
