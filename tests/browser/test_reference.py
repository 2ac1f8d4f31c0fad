"""The reference pages in a browser, below a path prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.settings import Settings
from tests.prefix_proxy import prefix_proxy
from tests.running import free_ports, running_query_service

if TYPE_CHECKING:
    from playwright.async_api import Page

PREFIX = "/shop/queries"


async def test_a_reference_page_below_a_path_prefix_sends_requests_there(settings: Settings, page: Page) -> None:
    [port] = free_ports(1)
    async with (
        running_query_service(settings, root_path=PREFIX) as queries,
        prefix_proxy(port, {PREFIX: str(queries.base_url)}),
    ):
        await page.goto(f"http://127.0.0.1:{port}{PREFIX}/docs")
        operation = page.locator(".opblock", has_text="/livez")
        await operation.locator(".opblock-summary-control").click()
        await operation.get_by_role("button", name="Try it out").click()
        async with page.expect_response("**/livez") as answered:
            await operation.get_by_role("button", name="Execute").click()
        answer = await answered.value
        assert (answer.status, answer.url) == (200, f"http://127.0.0.1:{port}{PREFIX}/livez")
