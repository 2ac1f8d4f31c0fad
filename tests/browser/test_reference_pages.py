"""The reference pages in a browser: every operation works as the page fills it in, on a stack that has run the tour."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shared.settings import Settings
from tests.browser.conftest import open_page
from tests.browser.reference import Operation, ReferencePage, execute, operations_of, try_out
from tests.documented import body_example
from tests.identity.issuer import AUDIENCE, ISSUER, Issuer
from tests.running import running_stack
from tests.stack.orders_up import OrdersUp
from tests.system.tour import Terminal, take_the_tour

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.timeout(900)
HOW = "give it an example that exists after the tour of the README, see docs/extending.md, 'Show it in the reference'"
NAMED = {operation.operation_id: operation for service in ("command", "query") for operation in operations_of(service)}
NOT_IN_THE_TOUR = {  # it fulfils its orders by hand
    *("getProcess", "getProcessHistory", "followProcess"),
    *("retryProcess", "skipStep", "compensateProcess"),
    "takeCallback",  # and no gateway signs a callback
}
STREAMS = [
    operation
    for name, operation in NAMED.items()
    if "text/event-stream" in str(operation.described["responses"]) and name not in NOT_IN_THE_TOUR
]


@pytest.fixture(scope="module")
def toured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OrdersUp, Terminal]]:
    directory = tmp_path_factory.mktemp("reference")
    stack = OrdersUp(directory / ".orders")
    try:
        terminal = Terminal(stack.until_ready(), directory / "repository")
        take_the_tour(terminal)
        yield stack, terminal
    finally:
        stack.stop()


@pytest.mark.openapi
@pytest.mark.promise(
    "browsers", "Every operation but of processes, gateways and streams works as its reference page fills it in"
)
async def test_every_operation_works_as_filled_in(toured: tuple[OrdersUp, Terminal], browser: Browser) -> None:
    stack, _ = toured
    both = await asyncio.gather(
        statuses_of("command", stack.command_url, browser), statuses_of("query", stack.query_url, browser)
    )
    refused = [f"{name}: {status}" for statuses in both for name, status in statuses if status not in range(200, 300)]
    assert refused == [], HOW


async def statuses_of(service: str, url: str, browser: Browser) -> list[tuple[str, int]]:
    """Of the answer to each operation, pressed in the order of the page."""
    statuses = []
    async with open_page(browser) as page:
        page.set_default_timeout(180_000)  # milliseconds; two pages render at once
        reference = await ReferencePage.open(page, url)
        for operation in operations_of(service):
            if not operation.is_endless and operation.operation_id not in NOT_IN_THE_TOUR:
                block = await reference.unfold(operation)
                assert await try_out(block) == (parameters_of(operation), body_example(operation.described)), operation
                statuses.append((operation.operation_id, await execute(block)))
                await reference.fold(block)
    return statuses


def parameters_of(operation: Operation) -> dict[str, str]:
    """What the page is to fill in: an example where a value is required, else nothing or what is assumed."""
    return {
        one["name"]: str(one["example"] if one.get("required") else one["schema"].get("default", ""))
        for one in operation.described.get("parameters", [])
    }


@pytest.mark.openapi
@pytest.mark.promise("browsers", "The reference page shows how to follow a stream, and does not load it for ever")
async def test_a_stream_is_followed_on_the_command_line(toured: tuple[OrdersUp, Terminal], page: Page) -> None:
    stack, terminal = toured
    reference = await ReferencePage.open(page, stack.query_url)
    commands = []
    for operation in STREAMS:
        block = await reference.unfold(operation)
        assert await block.locator("button.try-out__btn").count() == (0 if operation.is_endless else 1)
        commands.append(await block.locator(".opblock-description pre code").inner_text())
        await reference.fold(block)
    for_a_second = [command.replace("curl -N", "curl -sN -m 1") for command in commands]
    printed = await asyncio.gather(*(asyncio.to_thread(terminal.type, command) for command in for_a_second))
    for command, lines in zip(commands, printed, strict=True):
        assert re.search(r"^data: \{", lines, re.MULTILINE), command


@pytest.mark.promise("browsers", "With `AUTH=jwt`, the reference page sends the token that it is given")
async def test_the_page_sends_a_token(settings: Settings, tmp_path: Path, page: Page) -> None:
    issuer = Issuer(tmp_path / "keys.json")
    named = {"auth_issuer": ISSUER, "auth_audience": AUDIENCE, "auth_jwks": str(issuer.file)}
    identifying = settings.model_copy(update={"auth": "jwt", **named})
    async with running_stack(identifying):
        reference = await ReferencePage.open(page, f"http://127.0.0.1:{identifying.command_port}")
        block = await reference.unfold(NAMED["placeOrder"])
        await try_out(block)
        assert await execute(block) == 401
        await reference.authorize(issuer.token("staff"))
        await block.locator("button.btn-clear").click()
        assert await execute(block) == 201
