"""Readers of what was acknowledged to customers, during all faults. Any wrong answer ends the test.

Wrong is an order that is not there, is older than the token or was never so; a list that lacks it, or is not in order;
a report that counts fewer orders than its position says, more than there are, or amounts that do not belong together.
A 503 that says when to come back is honest; what else the servers may say while they are away is for the test.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import httpx

from tests.acknowledgements import Acknowledgement
from tests.orders import TOTAL
from tests.running import eventually

PAGE = 100
LONGEST_SECONDS = 12.0  # for any answer, whatever is gone
_AT_ONCE = 50  # of orders acknowledged so close together, the later one may have been placed first
_STATUSES = {1: {"PENDING"}, 2: {"CONFIRMED", "CANCELLED"}, 3: {"SHIPPED"}}  # by version, as customers order


class Readers:
    """`acknowledged` must be all that was asked for; it grows while they read. `wait` is how long their tokens may."""

    def __init__(
        self, query_url: str, acknowledged: Sequence[Acknowledgement], *, customers: int, wait: int = 1
    ) -> None:
        self.answers: Counter[tuple[str, int, str]] = Counter()  # (what was asked, status, problem code)
        self._acknowledged = acknowledged
        self._customers = customers  # how many order at once
        self._wait = wait
        self._client = httpx.AsyncClient(base_url=query_url, timeout=LONGEST_SECONDS)
        self._seen: defaultdict[str, int] = defaultdict(int)
        self._closing = False

    @asynccontextmanager
    async def reading(self, *, without_tokens: bool = False) -> AsyncIterator[Self]:
        """`without_tokens`: what they read so must not go back either."""
        rounds = [self._read_orders, self._read_log_and_report]
        if without_tokens:
            rounds.append(self._look_on)
        async with self._client, asyncio.TaskGroup() as tasks:
            for one in rounds:
                tasks.create_task(self._keep(one))
            try:
                yield self
            finally:
                self._closing = True

    def codes(self, *asked: str) -> set[tuple[int, str]]:
        """The kinds of answers to that; to everything where nothing is named."""
        return {(status, code) for what, status, code in self.answers if not asked or what in asked}

    async def until_more(self, more: int = 10, *asked: str, status: int = 200, seconds: float = 30.0) -> None:
        """Until each of these questions was answered so many times more; every one where none is named."""
        before = self._count(status)

        def answered() -> bool:
            now = self._count(status)
            questions = asked or {what for what, _, _ in self.answers}
            return bool(questions) and all(now[what] >= before[what] + more for what in questions)

        await eventually(answered, seconds)

    def _count(self, status: int) -> Counter[str]:
        counts: Counter[str] = Counter()
        for (what, answered, _), count in self.answers.items():
            counts[what] += count if answered == status else 0
        return counts

    async def _keep(self, read: Callable[[], Awaitable[None]]) -> None:
        await eventually(lambda: self._placed() or self._closing, seconds=30)
        while not self._closing:
            await read()

    async def _read_orders(self) -> None:
        latest = self._acknowledged[-1]
        await self._read_list("orders", f"/orders?limit={PAGE}", self._placed()[-1])
        answer = await self._ask("order", f"/orders/{latest['aggregate_id']}", latest)
        if answer is not None:
            order, _ = answer
            assert order["version"] >= latest["version"], (order, latest)
            _assert_was_so(order)
            path = f"/customers/{order['customer_id']}/orders?limit={PAGE}"
            await self._read_list("customer's orders", path, self._first_of(latest))

    async def _read_log_and_report(self) -> None:
        latest = self._acknowledged[-1]
        history = await self._ask("history", f"/orders/{latest['aggregate_id']}/history", latest)
        if history is not None:
            events = history[0]["events"]
            assert [event["version"] for event in events] == list(range(1, len(events) + 1))
            assert len(events) >= latest["version"]
            # A payment's last event is that its reference is the order's, on another stream.
            assert latest["position"] - events[latest["version"] - 1]["position"] in (0, 1)
        await self._read_report("report", latest)

    async def _look_on(self) -> None:
        await self._read_list("orders, no token", f"/orders?limit={PAGE}", None)
        await self._read_report("report, no token", None)

    async def _read_list(self, what: str, path: str, acknowledgement: Acknowledgement | None) -> None:
        """The order of `acknowledgement` must be listed; if None, the last order that the answer claims to show."""
        answer = await self._ask(what, path, acknowledgement)
        if answer is None:
            return
        listed, shown = answer[0]["orders"], answer[1]
        for summary in listed:
            _assert_was_so(summary)
        order_ids = [summary["order_id"] for summary in listed]
        assert len(set(order_ids)) == len(order_ids), f"{path} repeats an order"
        times = [summary["placed_at"] for summary in listed]
        assert times == sorted(times, reverse=True), f"{path} is not in order"
        placed = [one for one in self._placed() if one["position"] <= shown]
        if acknowledgement is None and placed:
            acknowledgement = placed[-1]
        if acknowledgement is not None and acknowledgement["aggregate_id"] not in order_ids:
            # Only those that came later may push it off the page.
            assert len(order_ids) == PAGE, f"{path} lacks {acknowledgement} at {shown}"
            before = {one["aggregate_id"] for one in placed if one["position"] < acknowledgement["position"] - _AT_ONCE}
            assert not before & {*order_ids}, f"{path} lacks {acknowledgement}"

    async def _read_report(self, what: str, acknowledgement: Acknowledgement | None) -> None:
        today = datetime.now(UTC).date()
        days = f"from={today - timedelta(days=1)}&to={today + timedelta(days=1)}"
        answer = await self._ask(what, f"/reports/revenue?{days}", acknowledgement)
        if answer is None:
            return
        lines, shown = answer[0]["lines"], answer[1]
        for line in lines:
            cost = line["orders"] * TOTAL
            paid = cost if line["status"] in {"CONFIRMED", "SHIPPED"} else 0
            lost = cost if line["status"] == "CANCELLED" else 0
            assert (line["placed"], line["paid"], line["cancelled"]) == (cost, paid, lost), line
        counted = sum(line["orders"] for line in lines)
        placed = self._placed()
        least = sum(one["position"] <= shown for one in placed)
        assert least <= counted <= len(placed) + self._customers, f"{counted} orders at {shown}, at least {least}"
        assert counted >= self._seen[f"{what}, counted"] or acknowledgement is not None, "the report has lost orders"
        self._seen[f"{what}, counted"] = counted

    async def _ask(self, what: str, path: str, acknowledgement: Acknowledgement | None) -> tuple[Any, int] | None:
        """The answer and the position it shows; None for an honest no."""
        headers = {"Prefer": f"wait={self._wait}"}
        if acknowledgement is not None:
            headers["Consistency-Token"] = acknowledgement["consistency_token"]
        answer = await self._client.get(path, headers=headers)
        body = answer.json()
        self.answers[what, answer.status_code, body.get("code", "")] += 1
        assert answer.status_code in {200, 503}, f"{path} for {acknowledgement}: {answer.status_code} {answer.text}"
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            return None
        shown = int(answer.headers["consistency-token"].rpartition("-")[2])
        least = self._seen[what] if acknowledgement is None else acknowledgement["position"]
        assert shown >= least, f"{path} went back to {shown} from {least}"
        self._seen[what] = shown
        return body, shown

    def _placed(self) -> list[Acknowledgement]:
        return [acknowledgement for acknowledgement in self._acknowledged if acknowledgement["version"] == 1]

    def _first_of(self, acknowledgement: Acknowledgement) -> Acknowledgement:
        """The acknowledgement that its order was placed, with the later one's token."""
        token = acknowledgement["consistency_token"]
        (first,) = (one for one in self._placed() if one["aggregate_id"] == acknowledgement["aggregate_id"])
        return {**first, "consistency_token": token}


def _assert_was_so(order: dict[str, Any]) -> None:
    """Of an order as customers place it, in full or in a list."""
    assert order["status"] in _STATUSES[order["version"]], order
    assert (order["total_amount"], order["item_count"]) == (TOTAL, 2), order
