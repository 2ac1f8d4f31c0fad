"""Takes the pictures of both reference pages, after the tour of the README: `python -m tests.browser.pictures`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.async_api import async_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.browser.reference import ReferencePage, execute, operations_of, try_out
from tests.stack.orders_up import OrdersUp
from tests.system.tour import Terminal, take_the_tour

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SHOWN = {"command": "placeOrder", "query": "getOrder"}


async def take_pictures(urls: dict[str, str]) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for service, url in urls.items():
            page = await browser.new_page(viewport={"width": 1_200, "height": 1_400})
            reference = await ReferencePage.open(page, url)
            [operation] = [one for one in operations_of(service) if one.operation_id == SHOWN[service]]
            block = await reference.unfold(operation)
            await try_out(block)
            assert await execute(block) < 300
            await page.locator(".opblock-tag").first.evaluate("tag => tag.scrollIntoView()")
            name = "commands" if service == "command" else "queries"
            await page.screenshot(path=IMAGES / f"reference-{name}.png")
        await browser.close()


def main() -> None:
    with TemporaryDirectory() as directory:
        stack = OrdersUp(Path(directory) / ".orders")
        try:
            take_the_tour(Terminal(stack.until_ready(), Path(directory) / "repository"))
            asyncio.run(take_pictures({"command": stack.command_url, "query": stack.query_url}))
        finally:
            stack.stop()


if __name__ == "__main__":
    main()
