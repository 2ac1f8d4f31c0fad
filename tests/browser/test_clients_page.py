"""The code of docs/clients.md, in a page of another origin, against a stack."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from shared.settings import Settings
from tests.browser.origin import DOCS, other_origin
from tests.running import running_stack

if TYPE_CHECKING:
    from playwright.async_api import Page

# Runs the code, and returns the arguments of each call of `show` once there are so many calls.
RUN = """async (count) => {
  const calls = []
  const enough = new Promise((resolve) => {
    globalThis.show = (...values) => {
      calls.push(values)
      if (calls.length === count) resolve()
    }
  })
  await import("/code.js")
  await enough
  return calls
}"""


@pytest.mark.promise("browsers", "The code of docs/clients.md works in a page of another origin")
async def test_the_code_of_the_page_works(settings: Settings, page: Page) -> None:
    text = (DOCS / "clients.md").read_text("utf-8")
    code = "\n".join(re.findall(r"^```js\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    allowing = settings.model_copy(update={"cors_origins": "http://localhost:*"})
    async with running_stack(allowing), other_origin(allowing, {"code.js": code}) as origin:
        await page.goto(origin)
        [order], *calls = await page.evaluate(RUN, 14)
    assert (order["status"], order["total_amount"]) == ("PENDING", 1_530)
    events = [call for call in calls if order["order_id"] in call]
    assert [(kind, version) for kind, _, version in events] == [
        ("OrderPlaced", 1),
        ("OrderItemAdded", 2),
        ("ShippingAddressChanged", 3),
    ]
    assert [call for call in calls if call not in events] == [
        [2],
        ["CANCELLED"],
        ["PENDING"],
        ["stale-version"],
        [1],
        ["Alice Liddell"],
        ["alice@example.org"],
        ["£2.55", "£9,007,199,254,740,993.12"],
        ["#/currency", "not-a-currency", {}],
        ["#/items", "too-few", {"minimum": 1}],
    ]
