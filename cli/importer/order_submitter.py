"""Submits orders to the command service.

Repeating a request is safe: the order id and the Idempotency-Key come from the file. If the first acknowledgement comes
again, an earlier attempt or run placed this very order. `idempotency-key-reused`, or `order-already-placed` once the
key has expired, says that an order of this id is there; the log says whether it is the same.
"""

from __future__ import annotations

import hashlib
from functools import partial

import httpx
import msgspec

from cli.importer.online_retail import OrderRequest, Placement, Reject
from cli.importer.placed_orders import NotAHistory, differences, history_path
from cli.importer.submitter import NotSettled, Submitter, explain

ALREADY_PLACED = "order-already-placed"
KEY_REUSED = "idempotency-key-reused"
DIFFERENT = "differs-from-the-log"  # of rejects

_GIVE_QUERY_URL = "give the query service's address as --query-url."

_encode = msgspec.json.Encoder().encode


class OrderSubmitter(Submitter[Placement]):
    """Places orders. A read that shows all of them reaches the `consistency_token`."""

    consistency_token = ""

    async def _settle(self, client: httpx.AsyncClient, placement: Placement) -> None:
        """Counts the outcome. Raises `NotSettled`, `CannotGoOn`."""
        order, summary = placement.order, self._summary
        url = self._command_url + "/orders"
        key = {"Idempotency-Key": _idempotency_key(order)}
        answer = await self._answer(partial(client.post, url, content=_encode(order), headers=key))
        if answer.status_code == httpx.codes.CREATED:
            replayed = "Idempotent-Replayed" in answer.headers
            summary.already_there += replayed
            summary.accepted += not replayed
            self._note_token(answer)
            return
        problem = self._refusal(answer, url)
        if problem.code not in (ALREADY_PLACED, KEY_REUSED):
            summary.refused.append(Reject(order.order_id, placement.lines, problem.code, explain(answer)))
        elif found := await self._differences(client, order, known=problem.code == KEY_REUSED):
            summary.refused.append(Reject(order.order_id, placement.lines, DIFFERENT, "; ".join(found[:5])))
        else:
            summary.already_there += 1

    async def _differences(self, client: httpx.AsyncClient, order: OrderRequest, *, known: bool) -> list[str]:
        """Between the order and the one of its id in the log. Raises `NotSettled` where the query service does not
        say, unless it is `known` that there are some."""
        url = self._query_url + history_path(order.order_id)
        try:
            answer = await self._answer(partial(client.get, url), patience=0 if known else self._patience)
            if answer.status_code == httpx.codes.OK:
                return differences(order, answer.content)
            self._summary.last_error = f"{url} answered {answer.status_code}"
        except NotAHistory as error:
            self._summary.last_error = f"{url}: {error}"
        except NotSettled:
            pass
        if known:
            return ["an order of this id and other content was imported before"]
        self._summary.advice = f"Orders that are there already could not be compared with the file: {_GIVE_QUERY_URL}"
        raise NotSettled

    def _note_token(self, answer: httpx.Response) -> None:
        token = answer.headers.get("Consistency-Token", "")
        if _position(token) > _position(self.consistency_token):
            self.consistency_token = token


def _position(token: str) -> int:
    """The number behind the last hyphen; 0 where there is none."""
    number = token.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _idempotency_key(order: OrderRequest) -> str:
    """Of the order's id alone, so that other content under the same id is noticed. Hashed: a key is visible ASCII."""
    return f"orders-import-{hashlib.sha256(order.order_id.encode()).hexdigest()}"
