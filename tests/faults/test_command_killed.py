"""`kill -9` of the command service right before a group is sent, and between its commit and the acknowledgement."""

from __future__ import annotations

import signal

import pytest

from tests.faults.shop import Shop, until_more


@pytest.mark.promise(
    "commands", "After a crash around the commit, a retry with the same key is carried out once and acknowledged"
)
@pytest.mark.parametrize("moment", ["append.sending", "append.committed"])
async def test_kill_9_around_an_append_loses_and_doubles_nothing_of_those_who_ask_again(
    moment: str, shop: Shop
) -> None:
    shop.command = shop.process("command", FAILPOINTS=f"{moment}=30*off->kill")
    await shop.start()
    customers = shop.customers()
    async with customers.ordering(8):
        assert await shop.command.until_it_ends() == -signal.SIGKILL
        again = shop.process("command", COMMAND_PORT=str(shop.command.port))
        again.port = shop.command.port
        await shop.start(again)
        await until_more(customers.acknowledged, 50)
    assert customers.asked_again > 0
    await shop.assert_all_is_well(customers.acknowledged)
