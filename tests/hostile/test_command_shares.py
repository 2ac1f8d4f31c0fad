"""One client with many commands in progress leaves places to the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from command_service.admission import Limit, protocol
from tests.hostile.connections import Answer, Client, connected, lifespan, limited, server
from tests.running import eventually

MOST = 8
COMMAND = b"POST /orders HTTP/1.1\r\nHost: a\r\n%bContent-Length: 2\r\n\r\n{}"


class Commands:
    """An application whose commands are in progress until they may end."""

    def __init__(self) -> None:
        self.in_progress = 0
        self.may_end = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        await Request(scope, receive).body()
        self.in_progress += 1
        await self.may_end.wait()
        self.in_progress -= 1
        await Response("done")(scope, receive, send)


@pytest.fixture
def limit() -> Limit:
    return Limit(0.1, MOST)


@pytest.fixture
async def commands() -> AsyncIterator[Commands]:
    commands = Commands()
    yield commands
    commands.may_end.set()


async def flood(stack: AsyncExitStack, port: int, commands: Commands, admitted: int) -> list[Client]:
    """Twice as many commands as there may be, of one client, of which so many are admitted."""
    attack = [await stack.enter_async_context(connected(port, "127.0.0.2")) for _ in range(2 * MOST)]
    for one in attack:
        one.send(COMMAND % b"")
    await eventually(lambda: commands.in_progress == admitted)
    return attack


async def sent(client: Client, header: bytes = b"") -> asyncio.Task[Answer]:
    client.send(COMMAND % header)
    return asyncio.create_task(client.answer())


@pytest.mark.promise("overload", "One client has at most half of the commands that may be in progress")
@pytest.mark.bound("command", "commands in progress")
async def test_a_client_that_floods_the_service_leaves_half_of_the_places_to_others(
    limit: Limit, commands: Commands
) -> None:
    async with server(protocol(limit), commands) as port, AsyncExitStack() as stack:
        attack = await flood(stack, port, commands, admitted=MOST // 2)
        async with connected(port, "127.0.0.3") as other:
            answer = await sent(other)
            await eventually(lambda: commands.in_progress == MOST // 2 + 1)
            commands.may_end.set()
            assert (await answer).status == 200
        statuses = [(await one.answer()).status for one in attack]
        assert sorted(statuses) == [200] * (MOST // 2) + [503] * (2 * MOST - MOST // 2)


@pytest.mark.promise("overload", "Under overload a client is admitted until it has an equal part of the limit")
async def test_under_overload_a_client_is_admitted_beside_one_that_takes_everything(
    limit: Limit, commands: Commands
) -> None:
    async with server(protocol(limit), commands) as port, AsyncExitStack() as stack:
        limit.commands = 2
        await flood(stack, port, commands, admitted=2)
        async with connected(port, "127.0.0.3") as other, connected(port, "127.0.0.3") as its_next:
            answer = await sent(other)
            await eventually(lambda: commands.in_progress == 3)
            assert (await (await sent(its_next))).code == "overloaded", "it has its part"
            commands.may_end.set()
            assert (await answer).status == 200


async def test_commands_of_clients_that_went_away_count_until_they_end(limit: Limit, commands: Commands) -> None:
    async with server(protocol(limit), commands) as port:
        async with AsyncExitStack() as stack:
            await flood(stack, port, commands, admitted=MOST // 2)
        async with connected(port, "127.0.0.2") as again:
            assert (await (await sent(again))).code == "overloaded"
        commands.may_end.set()
        await eventually(lambda: commands.in_progress == 0)
        async with connected(port, "127.0.0.2") as again:
            assert (await (await sent(again))).status == 200


@pytest.mark.promise("overload", "Clients that do not read what they asked a command service for delay no command")
async def test_requests_that_are_no_commands_take_no_place_of_theirs(limit: Limit, commands: Commands) -> None:
    async with server(protocol(limit), commands) as port, AsyncExitStack() as stack:
        for _ in range(2 * MOST):
            one = await stack.enter_async_context(connected(port, "127.0.0.2"))
            one.send(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n")
        await eventually(lambda: commands.in_progress == 2 * MOST)
        limit.commands = 2
        others = [await stack.enter_async_context(connected(port, "127.0.0.3")) for _ in range(2)]
        for other in others:
            other.send(COMMAND % b"")
        await eventually(lambda: commands.in_progress == 2 * MOST + 2)
        commands.may_end.set()
        assert [(await other.answer()).status for other in others] == [200, 200]


async def test_behind_a_proxy_the_clients_that_it_forwards_are_told_apart(limit: Limit, commands: Commands) -> None:
    trusting = limited(protocol(limit), trusted_proxies="127.0.0.2")
    async with server(trusting, commands) as port, AsyncExitStack() as stack:
        await flood(stack, port, commands, admitted=MOST // 2)  # the proxy names none
        async with connected(port, "127.0.0.2") as proxy:
            answer = await sent(proxy, b"X-Forwarded-For: 192.0.2.1\r\n")
            await eventually(lambda: commands.in_progress == MOST // 2 + 1)
            commands.may_end.set()
            assert (await answer).status == 200


def test_what_waits_for_the_log_does_not_count_for_its_client(limit: Limit) -> None:
    limit.in_append = lambda: MOST
    for _ in range(MOST + MOST // 2):
        assert limit.admits("one")
        limit.begin("one")
    assert not limit.admits("one")


def test_many_clients_with_a_command_each_are_bounded_by_the_limit(limit: Limit) -> None:
    for number in range(MOST):
        assert limit.admits(str(number))
        limit.begin(str(number))
    assert not limit.admits("another")
