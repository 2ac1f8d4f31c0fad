"""Submits orders to the command service, several at a time, until each outcome is known or patience runs out.

Repeating a request is safe: the order id and the Idempotency-Key come from the file. If the first acknowledgement comes
again, an earlier attempt or run placed this very order. `idempotency-key-reused`, or `order-already-placed` once the
key has expired, says that an order of this id is there; the log says whether it is the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import httpx
import msgspec

from cli.bearer_token import ADVICE, BearerToken
from cli.importer.online_retail import OrderRequest, Placement, Reject
from cli.importer.placed_orders import NotAHistory, differences, history_path

# The service is overloaded, starts or stops, or does not know the outcome itself.
RETRIED = {429, 500, 502, 503, 504}
REFUSED = {400, 409, 413, 422}
CALLER_REFUSED = {401, 403}
ALREADY_PLACED = "order-already-placed"
KEY_REUSED = "idempotency-key-reused"
DIFFERENT = "differs-from-the-log"  # of rejects
NOT_FOUND = "order-not-found"  # of the query service: the replica that it reads is behind

ANSWER_SECONDS = 30.0  # longer than the service waits for its database, so that the service answers first
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0

_GIVE_QUERY_URL = "give the query service's address as --query-url."

_encode = msgspec.json.Encoder().encode


class _FieldError(msgspec.Struct):
    pointer: str = ""
    detail: str = ""


class _Problem(msgspec.Struct):
    code: str
    detail: str = ""
    errors: list[_FieldError] = []


class _NotSettled(Exception):
    """Patience ran out before the outcome of an order was known."""


class _CannotGoOn(Exception):
    """The server refuses the caller, or does not answer as the command service does."""


@dataclass
class ImportSummary:
    """The outcomes known so far. Valid at any moment, also when a run is interrupted."""

    accepted: int = 0
    already_there: int = 0
    refused: list[Reject] = field(default_factory=list)
    last_error: str = ""  # of the last attempt without an outcome
    advice: str = ""

    @property
    def settled(self) -> int:
        return self.accepted + self.already_there + len(self.refused)


class OrderSubmitter:
    """Submits orders with `concurrency` workers, each with one request at a time.

    Gives an order up after `patience` seconds of attempts, and all the rest once no order was settled for that long. An
    order that was given up is missing from the summary.
    """

    def __init__(
        self,
        command_url: str,
        query_url: str,
        token: BearerToken,
        concurrency: int,
        patience: float,
        summary: ImportSummary,
    ) -> None:
        self._url = command_url.rstrip("/") + "/orders"
        self._query_url = query_url.rstrip("/")
        self._token = token
        self._concurrency = concurrency
        self._patience = patience
        self._summary = summary
        self._last_settled = time.monotonic()
        self._stopped = False

    async def submit(self, placements: list[Placement], on_settled: Callable[[], None]) -> None:
        """Submit the orders, in order as far as concurrency allows; calls `on_settled` once per known outcome."""
        self._last_settled = time.monotonic()
        queue = iter(placements)
        # Loading the trusted certificates takes long: once, and only for https.
        secure = any(httpx.URL(url).scheme == "https" for url in (self._url, self._query_url))
        tls = httpx.create_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self._concurrency, len(placements))):
                workers.create_task(self._work(tls, queue, on_settled))

    async def _work(self, tls: ssl.SSLContext, queue: Iterator[Placement], on_settled: Callable[[], None]) -> None:
        # A client of its own for each worker: a request in a pool of 64 connections takes several times as long.
        async with httpx.AsyncClient(
            auth=self._token,
            headers={"Content-Type": "application/json"},
            limits=httpx.Limits(max_connections=2),  # to the command service, and to the query service
            timeout=ANSWER_SECONDS,
            trust_env=False,  # no proxies of the environment
            verify=tls,
        ) as client:
            await self._submit_each(client, queue, on_settled)

    async def _submit_each(
        self, client: httpx.AsyncClient, queue: Iterator[Placement], on_settled: Callable[[], None]
    ) -> None:
        for placement in queue:
            if self._stopped or time.monotonic() - self._last_settled > self._patience:
                return
            try:
                await self._settle(client, placement)
            except _NotSettled:
                continue
            except _CannotGoOn as error:
                self._summary.last_error, self._stopped = str(error), True
                return
            self._last_settled = time.monotonic()
            on_settled()

    async def _settle(self, client: httpx.AsyncClient, placement: Placement) -> None:
        """Counts the outcome. Raises `_NotSettled`, `_CannotGoOn`."""
        order, summary = placement.order, self._summary
        key = {"Idempotency-Key": _idempotency_key(order)}
        answer = await self._answer(partial(client.post, self._url, content=_encode(order), headers=key))
        if answer.status_code == httpx.codes.CREATED:
            replayed = "Idempotent-Replayed" in answer.headers
            summary.already_there += replayed
            summary.accepted += not replayed
            return
        problem = _problem(answer) if answer.status_code in REFUSED else None
        if answer.status_code in CALLER_REFUSED:
            raise _CannotGoOn(f"{self._url} answered {answer.status_code}: {_explain(answer)} ({ADVICE})")
        if problem is None:
            raise _CannotGoOn(f"{self._url} answered {answer.status_code}, which the order command service does not")
        if problem.code not in (ALREADY_PLACED, KEY_REUSED):
            summary.refused.append(Reject(order.order_id, placement.lines, problem.code, _explain(answer)))
        elif found := await self._differences(client, order, known=problem.code == KEY_REUSED):
            summary.refused.append(Reject(order.order_id, placement.lines, DIFFERENT, "; ".join(found[:5])))
        else:
            summary.already_there += 1

    async def _differences(self, client: httpx.AsyncClient, order: OrderRequest, *, known: bool) -> list[str]:
        """Between the order and the one of its id in the log. Raises `_NotSettled` where the query service does not
        say, unless it is `known` that there are some."""
        url = self._query_url + history_path(order.order_id)
        try:
            answer = await self._answer(partial(client.get, url), patience=0 if known else self._patience)
            if answer.status_code == httpx.codes.OK:
                return differences(order, answer.content)
            self._summary.last_error = f"{url} answered {answer.status_code}"
        except NotAHistory as error:
            self._summary.last_error = f"{url}: {error}"
        except _NotSettled:
            pass
        if known:
            return ["an order of this id and other content was imported before"]
        self._summary.advice = f"Orders that are there already could not be compared with the file: {_GIVE_QUERY_URL}"
        raise _NotSettled

    async def _answer(
        self, send: Callable[[], Awaitable[httpx.Response]], patience: float | None = None
    ) -> httpx.Response:
        """The first answer that is an outcome. Raises `_NotSettled` when there is none in time."""
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        for pause in _pauses():
            wait = pause
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    answer = await send()
            except (httpx.HTTPError, OSError) as error:
                self._summary.last_error = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            else:
                if not _is_retried(answer):
                    return answer
                self._summary.last_error = f"{answer.status_code} {_explain(answer)}"
                wait = max(pause, _retry_after(answer))
            if self._stopped or time.monotonic() + wait > deadline:
                break
            await asyncio.sleep(wait)
        raise _NotSettled


def _idempotency_key(order: OrderRequest) -> str:
    """Of the order's id alone, so that other content under the same id is noticed. Hashed: a key is visible ASCII."""
    return f"orders-import-{hashlib.sha256(order.order_id.encode()).hexdigest()}"


def _is_retried(answer: httpx.Response) -> bool:
    if answer.status_code == httpx.codes.NOT_FOUND:
        problem = _problem(answer)
        return problem is not None and problem.code == NOT_FOUND
    return answer.status_code in RETRIED


def _pauses() -> Iterator[float]:
    """Doubling pauses in seconds, without end; random, so that the workers do not retry at the same moment."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _retry_after(answer: httpx.Response) -> float:
    """Seconds; 0 where the header is missing or a date, which the command service never sends."""
    try:
        return float(answer.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0


def _problem(answer: httpx.Response) -> _Problem | None:
    """The problem details (RFC 9457) of an error; None if it has none."""
    try:
        return msgspec.json.decode(answer.content, type=_Problem)
    except msgspec.DecodeError:
        return None


def _explain(answer: httpx.Response) -> str:
    problem = _problem(answer)
    if problem is None:
        return answer.reason_phrase
    fields = "; ".join(f"{error.pointer} {error.detail}" for error in problem.errors[:5])
    return f"{problem.detail} ({fields})" if fields else problem.detail
