"""What every client may ask for, however often, costs a service little."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from shared.eventstore import log as event_log
from shared.http import openapi_document
from shared.settings import Settings
from tests.hostile.clients import client_at
from tests.running import clients_of, eventually, running_command_service

REQUESTS = 50


@asynccontextmanager
async def attacked(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """(attacker, another client) of a command service."""
    async with (
        running_command_service(settings),
        clients_of(settings) as (commands, _),
        client_at("127.0.0.2", commands) as attacker,
    ):
        yield attacker, commands


@pytest.mark.promise("requests", "The pages of the reference are made once, and hold up no other request")
@pytest.mark.parametrize("path", ["/openapi.json", "/docs/errors.md"])
async def test_a_page_of_the_reference_is_made_once_beside_other_requests(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    makers: list[threading.Thread] = []
    may_end = threading.Event()
    make = openapi_document._make

    def slow(*arguments: Any) -> Any:
        makers.append(threading.current_thread())
        assert makers[-1] is not threading.main_thread(), "it holds up the event loop"
        assert may_end.wait(10)
        return make(*arguments)

    monkeypatch.setattr(openapi_document, "_make", slow)
    async with attacked(settings) as (attacker, other):
        attack = [asyncio.create_task(attacker.get(path)) for _ in range(REQUESTS)]
        await eventually(lambda: len(makers) == 1)
        assert (await other.get("/livez")).status_code == 200
        may_end.set()
        answers = await asyncio.gather(*attack)
    assert len(makers) == 1
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1


@pytest.mark.promise("requests", "Clients that flood `/readyz` cause one check at a time")
async def test_a_flood_of_readiness_checks_asks_the_servers_once_at_a_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, asked = 0, 0
    may_answer = asyncio.Event()

    async def slow(_: object) -> bool:
        nonlocal asking, asked
        asking, asked = asking + 1, asked + 1
        assert asking == 1
        await may_answer.wait()
        asking -= 1
        return True

    async with attacked(settings) as (attacker, other):
        monkeypatch.setattr(event_log, "takes_writes", slow)
        attack = [asyncio.create_task(attacker.get("/readyz")) for _ in range(REQUESTS)]
        await eventually(lambda: asked == 1)
        assert (await other.get("/livez")).status_code == 200
        may_answer.set()
        answers = await asyncio.gather(*attack)
    assert {answer.status_code for answer in answers} == {200}
