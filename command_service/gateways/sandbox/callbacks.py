"""Sends the callbacks of the sandbox, until they are taken."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from time import time

import httpx
import msgspec
from uuid_utils import uuid7

from command_service.gateways.messages import CALLBACK_TYPE, CallbackMessage, OutcomeMessage
from command_service.gateways.sandbox.ledger import Ledger
from command_service.gateways.signatures import Signatures
from shared.aio import wait_for
from shared.logs import get_logger

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.2, 60.0
MAX_ATTEMPTS = 20  # twelve minutes
TIMEOUT_SECONDS = 5.0

_log = get_logger()


class CallbackSender:
    def __init__(self, ledger: Ledger, url: str, signatures: Mapping[str, Signatures]) -> None:
        """`url` is that of `/gateways` at the command service; `signatures` by service."""
        self._ledger = ledger
        self._url = url
        self._signatures = signatures
        self._wake = asyncio.Event()

    def add(self, service: str, outcome: OutcomeMessage, *, copies: int = 1) -> None:
        """In the transaction of the ledger that is open."""
        if self._url:
            message = msgspec.json.encode(CallbackMessage(CALLBACK_TYPE, datetime.now(UTC), outcome))
            self._ledger.add_callback(str(uuid7()), service, message, copies)
            self._wake.set()

    async def run(self) -> None:
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
            while True:
                self._wake.clear()
                rows = self._ledger.database.execute(
                    "select id, service, message, copies, attempts, due from callbacks order by due limit 100"
                ).fetchall()
                for callback_id, service, message, copies, attempts, due in rows:
                    if due <= time():
                        await self._send(client, callback_id, service, message, copies, attempts)
                first = self._ledger.database.execute("select min(due) from callbacks").fetchone()[0]
                await wait_for(self._wake, 60.0 if first is None else max(0.0, first - time()))

    async def _send(
        self, client: httpx.AsyncClient, callback_id: str, service: str, message: bytes, copies: int, attempts: int
    ) -> None:
        try:
            for _ in range(copies):
                headers = self._signatures[service].sign(callback_id, datetime.now(UTC), message)
                answer = await client.post(
                    f"{self._url}/{service}/events",
                    content=message,
                    headers={"Content-Type": "application/json", **headers},
                )
                answer.raise_for_status()
        except httpx.HTTPError as error:
            _log.warning("callback not taken", service=service, attempts=attempts + 1, error=repr(error))
            if attempts + 1 < MAX_ATTEMPTS:
                due = time() + min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2**attempts)
                self._ledger.database.execute(
                    "update callbacks set attempts = attempts + 1, due = ? where id = ?", (due, callback_id)
                )
                return
        self._ledger.database.execute("delete from callbacks where id = ?", (callback_id,))
