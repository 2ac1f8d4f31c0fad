"""A reference page in a browser: its operations, what it fills in, and what is answered when it is executed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.documented import Document, read_document

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page


class Operation(NamedTuple):
    tag: str
    operation_id: str
    described: Document

    @property
    def is_endless(self) -> bool:
        """It answers nothing but a stream."""
        return bool(self.described.get("x-event-stream"))


def operations_of(service: str) -> Iterator[Operation]:
    """In the order of the document."""
    for item in read_document(service)["paths"].values():
        for described in item.values():
            yield Operation(described["tags"][0], described["operationId"], described)


class ReferencePage:
    def __init__(self, page: Page) -> None:
        self._page = page

    @classmethod
    async def open(cls, page: Page, url: str) -> ReferencePage:
        """That of the service at `url`."""
        await page.goto(f"{url}/docs")
        await page.locator(".opblock").first.wait_for()
        return cls(page)

    async def authorize(self, token: str) -> None:
        await self._page.locator(".auth-wrapper button.authorize").first.click()
        dialog = self._page.locator(".modal-ux")
        await dialog.locator("input").fill(token)
        await dialog.locator("button.authorize").click()
        await dialog.locator("button.btn-done").click()

    async def unfold(self, operation: Operation) -> Locator:
        name = f"operations-{operation.tag.replace(' ', '_')}-{operation.operation_id}"
        block = self._page.locator(f'[id="{name}"]')
        await block.locator(".opblock-summary-control").click()
        await block.locator(".opblock-body").wait_for()
        return block

    async def fold(self, block: Locator) -> None:
        await block.locator(".opblock-summary-control").click()


async def try_out(block: Locator) -> tuple[dict[str, str], Any]:
    """(value of each parameter, body) as the page fills them in."""
    await block.locator("button.try-out__btn").click()
    rows = block.locator("tr[data-param-name]")
    values: dict[str, str] = await rows.evaluate_all(
        "rows => Object.fromEntries(rows.map(row => ["
        "row.dataset.paramName, row.querySelector('input, select, textarea').value]))"
    )
    body = block.locator("textarea.body-param__text")
    return values, json.loads(await body.input_value()) if await body.count() else None


async def execute(block: Locator) -> int:
    """The status of the answer."""
    await block.locator("button.execute").click()
    shown = block.locator(".live-responses-table tr.response td.response-col_status").first
    return int((await shown.inner_text()).split()[0])
