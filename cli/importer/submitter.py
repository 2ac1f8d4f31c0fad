"""Submits what a file holds to the services, several requests at a time, until each outcome is known or patience runs
out."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import httpx
import msgspec

from cli.bearer_token import ADVICE, BearerToken
from cli.importer.online_retail import Reject

# The service is overloaded, starts or stops, or does not know the outcome itself.
RETRIED = {429, 500, 502, 503, 504}
REFUSED = {400, 409, 413, 422}
CALLER_REFUSED = {401, 403}
# The replica that the query service reads is behind; other commands changed the same data.
RETRIED_CODES = {"order-not-found", "version-conflict"}

ANSWER_SECONDS = 30.0  # longer than the service waits for its database, so that the service answers first
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0

T = TypeVar("T")


class _FieldError(msgspec.Struct):
    pointer: str = ""
    detail: str = ""


class Problem(msgspec.Struct):
    code: str
    detail: str = ""
    errors: list[_FieldError] = []


class NotSettled(Exception):
    """Patience ran out before an outcome was known."""


class CannotGoOn(Exception):
    """The server refuses the caller, or does not answer as the command service does."""


@dataclass
class ImportSummary:
    """The outcomes known so far. Valid at any moment, also when a run is interrupted."""

    accepted: int = 0
    already_there: int = 0
    refused: list[Reject] = field(default_factory=list)
    credit_notes: int = 0  # whose outcome is known
    returned: int = 0  # of them: booked now, at least in part
    returned_before: int = 0
    unmatched: list[Reject] = field(default_factory=list)  # lines of credit notes
    last_error: str = ""  # of the last attempt without an outcome
    advice: str = ""

    @property
    def settled(self) -> int:
        return self.accepted + self.already_there + len(self.refused)


class Submitter(ABC, Generic[T]):
    """Submits items with `concurrency` workers, each with one request at a time.

    Gives an item up after `patience` seconds of attempts, and all the rest once none was settled for that long. What
    was given up is missing from the summary.
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
        self._command_url = command_url.rstrip("/")
        self._query_url = query_url.rstrip("/")
        self._token = token
        self._concurrency = concurrency
        self._patience = patience
        self._summary = summary
        self._last_settled = time.monotonic()
        self._stopped = False

    @abstractmethod
    async def _settle(self, client: httpx.AsyncClient, item: T) -> None:
        """Counts the outcome. Raises `NotSettled`, `CannotGoOn`."""

    async def submit(self, items: Sequence[T], on_settled: Callable[[], None]) -> None:
        """Submit the items, in order as far as concurrency allows; calls `on_settled` once per known outcome."""
        self._note_progress()
        queue = iter(items)
        # Loading the trusted certificates takes long: once, and only for https.
        secure = any(httpx.URL(url).scheme == "https" for url in (self._command_url, self._query_url))
        tls = httpx.create_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self._concurrency, len(items))):
                workers.create_task(self._work(tls, queue, on_settled))

    async def _work(self, tls: ssl.SSLContext, queue: Iterator[T], on_settled: Callable[[], None]) -> None:
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

    async def _submit_each(self, client: httpx.AsyncClient, queue: Iterator[T], on_settled: Callable[[], None]) -> None:
        for item in queue:
            if self._stopped or time.monotonic() - self._last_settled > self._patience:
                return
            try:
                await self._settle(client, item)
            except NotSettled:
                continue
            except CannotGoOn as error:
                self._summary.last_error, self._stopped = str(error), True
                return
            self._note_progress()
            on_settled()

    def _note_progress(self) -> None:
        """An item that takes many requests says so after each, so that the rest is not given up meanwhile."""
        self._last_settled = time.monotonic()

    async def _answer(
        self, send: Callable[[], Awaitable[httpx.Response]], patience: float | None = None
    ) -> httpx.Response:
        """The first answer that is an outcome. Raises `NotSettled` when there is none in time."""
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
                self._summary.last_error = f"{answer.status_code} {explain(answer)}"
                wait = max(pause, _retry_after(answer))
            if self._stopped or time.monotonic() + wait > deadline:
                break
            await asyncio.sleep(wait)
        raise NotSettled

    def _refusal(self, answer: httpx.Response, url: str) -> Problem:
        """Why the command service refused. Raises `CannotGoOn` for an answer that is no refusal of the request."""
        if answer.status_code in CALLER_REFUSED:
            raise CannotGoOn(f"{url} answered {answer.status_code}: {explain(answer)} ({ADVICE})")
        problem = _problem(answer) if answer.status_code in REFUSED else None
        if problem is None:
            raise CannotGoOn(f"{url} answered {answer.status_code}, which the order command service does not")
        return problem


def _is_retried(answer: httpx.Response) -> bool:
    if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.CONFLICT):
        problem = _problem(answer)
        return problem is not None and problem.code in RETRIED_CODES
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


def _problem(answer: httpx.Response) -> Problem | None:
    """The problem details (RFC 9457) of an error; None if it has none."""
    try:
        return msgspec.json.decode(answer.content, type=Problem)
    except msgspec.DecodeError:
        return None


def explain(answer: httpx.Response) -> str:
    """The sentences of a problem."""
    problem = _problem(answer)
    if problem is None:
        return answer.reason_phrase
    fields = "; ".join(f"{error.pointer} {error.detail}" for error in problem.errors[:5])
    return f"{problem.detail} ({fields})" if fields else problem.detail
