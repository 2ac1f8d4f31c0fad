"""The example page of docs/examples/shop/, in a browser: a page of another origin, against a stack."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from shared.settings import Settings
from tests.browser.conftest import open_page
from tests.browser.origin import DOCS, other_origin
from tests.browser.services import Services, running_services
from tests.identity.issuer import AUDIENCE, ISSUER, Issuer, bearer
from tests.orders import TOTAL, order_body, place
from tests.test_clients_page import form_error_codes

if TYPE_CHECKING:
    from playwright.async_api import Browser, Locator, Page

Command: TypeAlias = tuple[str, dict[str, Any]]  # name and body

SHOP = "examples/shop/index.html"
HEART = "Quantity of White hanging heart"
# The texts of the list, one after the other, as a reader of the page saw them.
WATCH = """() => {
  const list = document.getElementById("list")
  globalThis.shown = []
  new MutationObserver(() => shown.push(list.textContent)).observe(list, {
    subtree: true, childList: true, characterData: true,
  })
}"""


def expect(of: Page | Locator) -> Any:
    from playwright.async_api import expect

    expect.set_options(timeout=20_000)  # milliseconds
    return expect(of)


@pytest.fixture
async def services(settings: Settings) -> AsyncIterator[Services]:
    changed = {"cors_origins": "http://localhost:*", "token_wait_seconds": 0.3}
    async with running_services(settings.model_copy(update=changed)) as services:
        yield services


@pytest.fixture
async def shop(services: Services, page: Page) -> AsyncIterator[Page]:
    """The page of alice, which follows her orders."""
    async with other_origin(services.settings) as origin:
        await page.goto(f"{origin}/{SHOP}")
        await expect(page.locator("output[name=state]")).to_have_text("live")
        yield page


def row(shop: Page, text: str) -> Locator:
    return shop.locator("#list li", has_text=text)


async def order_hearts(shop: Page, quantity: str) -> None:
    await shop.get_by_label(HEART).fill(quantity)
    await shop.get_by_role("button", name="Place order").click()


@pytest.mark.promise("browsers", "The example page places, pays and moves orders, and shows each change at once")
async def test_the_page_places_an_order_pays_it_and_shows_both(shop: Page) -> None:
    await order_hearts(shop, "6")
    await expect(row(shop, "PENDING")).to_contain_text("£15.30")
    await expect(row(shop, "PENDING")).not_to_have_class("unconfirmed")
    await shop.get_by_role("button", name="Pay £15.30").click()
    await expect(row(shop, "CONFIRMED")).not_to_have_class("unconfirmed")
    await expect(shop.locator("#order [data-field=paid]")).to_have_text("£15.30")
    await expect(shop.locator("#order [data-field=version]")).to_have_text("2")
    await expect(shop.locator("#notice")).to_be_empty()


@pytest.mark.parametrize(("currency", "price"), [("JPY", "¥980"), ("KWD", re.compile("KWD.2.010"))], ids=["JPY", "KWD"])
async def test_the_page_shows_amounts_of_every_currency(shop: Page, currency: str, price: Any) -> None:
    await shop.get_by_label("Currency").select_option(currency)
    await order_hearts(shop, "2")
    await expect(shop.locator("#order tfoot")).to_contain_text(price)
    await expect(row(shop, "PENDING")).to_contain_text(price)


async def test_the_page_lists_in_pages(services: Services, shop: Page) -> None:
    for number in range(1, 8):
        await place(services.commands, order_id=f"order-{number}")
    await expect(shop.locator("#list li")).to_have_count(7)  # they come live
    await shop.get_by_role("button", name="Show orders").click()
    await expect(shop.locator("#list li")).to_have_count(5)
    await expect(shop.locator("#list li").first).to_contain_text("order-7")
    await shop.get_by_role("button", name="Older orders").click()
    await expect(shop.locator("#list li")).to_have_count(7)
    await expect(shop.get_by_role("button", name="Older orders")).to_be_hidden()


@pytest.mark.promise("browsers", "The example page takes back what it showed of a command that is refused")
async def test_the_page_takes_back_what_was_refused(services: Services, shop: Page) -> None:
    await place(services.commands, order_id="order-1")
    await expect(row(shop, "order-1")).to_contain_text("PENDING")
    await shop.get_by_label("Follow live").uncheck()
    await row(shop, "order-1").click()
    await services.command_order("order-1", "payment", payment_reference="1", amount=TOTAL)
    token = await services.command_order("order-1", "shipment", tracking_number="1")
    await services.queries.get("/orders/order-1", headers={"Consistency-Token": token, "Prefer": "wait=10"})
    await shop.evaluate(WATCH)
    await shop.get_by_role("button", name="Cancel order").click()
    await expect(shop.locator("#notice")).to_have_text("This order can no longer be cancelled.")
    await expect(row(shop, "order-1")).to_contain_text("SHIPPED")
    states = [re.findall("PENDING|CANCELLED|SHIPPED", text) for text in await shop.evaluate("shown")]
    seen = [state for number, state in enumerate(states) if number == 0 or state != states[number - 1]]
    assert seen == [["CANCELLED"], ["PENDING"], ["SHIPPED"]]
    await expect(shop.get_by_role("button", name="Cancel order")).to_be_hidden()


async def test_the_page_says_what_is_wrong_with_a_form_in_its_own_words(services: Services, browser: Browser) -> None:
    async with other_origin(services.settings) as origin:
        for locale, sentence in (("en-GB", "At most 1,000,000."), ("de-DE", "Höchstens 1.000.000.")):
            async with open_page(browser, locale=locale) as shop:
                await shop.goto(f"{origin}/{SHOP}")
                await shop.evaluate(WATCH)
                await order_hearts(shop, "2000000")
                await expect(shop.locator("#products .error").first).to_have_text(sentence)
                await expect(shop.get_by_label(HEART)).to_have_attribute("aria-invalid", "true")
                await expect(shop.get_by_label(HEART)).to_be_focused()
                await expect(shop.locator("#list li")).to_have_count(0)
                assert "PENDING" in "".join(await shop.evaluate("shown")), "it was shown at once"


@pytest.mark.promise("browsers", "The example page changes an order only as the customer saw it")
async def test_the_page_changes_only_what_the_customer_saw(services: Services, shop: Page) -> None:
    await place(services.commands, order_id="order-1")
    await row(shop, "order-1").click()
    await shop.get_by_text("Change the address").click()
    await services.command_order("order-1", "shipping-address", shipping_address_id="elsewhere")
    address = shop.locator("#order [data-field=address]")
    await expect(address).to_have_text("elsewhere")  # while the customer types
    await shop.locator("#move input").fill("work")
    await shop.get_by_role("button", name="Save").click()
    await expect(shop.locator("#notice")).to_contain_text("The order has changed meanwhile.")
    await expect(address).to_have_text("elsewhere")
    await shop.get_by_role("button", name="Save").click()
    await expect(address).to_have_text("work")
    await expect(shop.locator("#notice")).to_be_empty()


@pytest.mark.promise("browsers", "The example page shows an acknowledged order while the read side is behind")
async def test_the_page_shows_an_order_while_the_projector_is_behind(services: Services, shop: Page) -> None:
    await services.projector.stop()
    await order_hearts(shop, "1")
    await expect(shop.locator("#notice")).to_have_text("Accepted. The list is a little behind, and will show it.")
    await expect(row(shop, "PENDING")).to_have_class("unconfirmed")
    await services.projector.start()
    await expect(row(shop, "PENDING")).not_to_have_class("unconfirmed")
    await expect(shop.locator("#notice")).to_be_empty()


@pytest.mark.promise("browsers", "The example page follows on after a restart of the query service, and misses nothing")
async def test_the_page_follows_on_after_a_restart_of_the_query_service(services: Services, shop: Page) -> None:
    await place(services.commands, order_id="before")
    await expect(row(shop, "before")).to_contain_text("PENDING")
    await services.query.stop()
    await expect(shop.locator("output[name=state]")).to_have_text("reconnecting …")
    await place(services.commands, order_id="later")
    await services.command_order("before", "cancellation", reason="test")
    await services.query.start()
    await expect(row(shop, "later")).to_contain_text("PENDING")
    await expect(row(shop, "before")).to_contain_text("CANCELLED")
    await expect(shop.locator("output[name=state]")).to_have_text("live")


async def test_the_page_sends_a_command_again_until_it_is_acknowledged(services: Services, shop: Page) -> None:
    await services.command.stop()
    await order_hearts(shop, "1")
    await expect(shop.locator("#notice")).to_have_text("Not answered yet. Trying again …")
    await expect(row(shop, "PENDING")).to_have_class("unconfirmed")
    await services.command.start()
    await expect(row(shop, "PENDING")).not_to_have_class("unconfirmed")
    listed = (await services.queries.get("/customers/alice/orders")).json()["orders"]
    assert [order["version"] for order in listed] == [1]


@pytest.mark.promise("browsers", "The example page sends a bearer token, also where it follows orders")
async def test_the_page_names_its_caller(settings: Settings, page: Page, tmp_path: Path) -> None:
    issuer = Issuer(tmp_path / "keys.json")
    identifying = {"auth": "jwt", "auth_issuer": ISSUER, "auth_audience": AUDIENCE, "auth_jwks": str(issuer.file)}
    changed = settings.model_copy(update={"cors_origins": "http://localhost:*", **identifying})
    async with running_services(changed) as services, other_origin(changed) as origin:
        await page.goto(f"{origin}/{SHOP}")
        await expect(page.locator("#notice")).to_have_text("Give a bearer token.")
        await page.get_by_label("Bearer token").fill(issuer.token("customer", customer_id="alice"))
        await page.get_by_role("button", name="Show orders").click()
        await expect(page.locator("output[name=state]")).to_have_text("live")
        await order_hearts(page, "6")
        await expect(row(page, "PENDING")).not_to_have_class("unconfirmed")
        headers = bearer(issuer.token("service"))
        placed = await services.commands.post("/orders", json=order_body(order_id="other"), headers=headers)
        assert placed.status_code == 201
        await expect(row(page, "other")).to_contain_text("PENDING")


def test_the_page_has_words_for_codes_that_exist() -> None:
    texts = (DOCS / "examples" / "shop" / "texts.js").read_text("utf-8")
    english, german = ({*re.findall(r'^    "?([a-z-]+)"?: "', part, re.MULTILINE)} for part in texts.split("  de: {"))
    assert english == german
    of_problems = {*re.findall("^## (.+)$", (DOCS / "errors.md").read_text("utf-8"), re.MULTILINE)}
    assert english - form_error_codes() - of_problems == {"unreachable"}


@pytest.mark.skipif("PICTURE" not in os.environ, reason="`make picture` takes it")
async def test_the_picture_of_the_page(services: Services, browser: Browser) -> None:
    paid: list[Command] = [("payment", {"payment_reference": f"pay-{n}", "amount": TOTAL}) for n in range(3)]
    shipped: Command = "shipment", {"tracking_number": "RM123456789GB"}
    lives: list[list[Command]] = [
        [paid[0], shipped, ("delivery", {})],
        [paid[1], shipped],
        [("cancellation", {"reason": "twice"})],
        [paid[2]],
    ]
    for order_id, life in enumerate(lives, 536_365):
        await place(services.commands, order_id=str(order_id))
        for command, body in life:
            await services.command_order(str(order_id), command, **body)
    async with other_origin(services.settings) as origin:
        options = {"locale": "en-GB", "viewport": {"width": 1180, "height": 640}, "color_scheme": "light"}
        async with open_page(browser, **options) as shop:
            await shop.goto(f"{origin}/{SHOP}")
            await expect(shop.locator("#list li")).to_have_count(len(lives))
            await shop.get_by_label("Quantity of White metal lantern").fill("2")
            await order_hearts(shop, "6")
            await expect(row(shop, "PENDING")).not_to_have_class("unconfirmed")
            await shop.screenshot(path=DOCS / "images" / "shop.png", full_page=True)
