"""What the catalogue has to say about the lines of an order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from shared.aggregates.order import Charge, ChargeKind, OrderLine
from shared.errors import NotFound, Rejected


class CatalogueProduct(NamedTuple):
    unit_price: int
    currency: str
    retired: bool


class CatalogueTerms(NamedTuple):
    """The products of a command that the catalogue has, as they were when it came. `prices_bind`: it gives no other."""

    products: Mapping[str, CatalogueProduct]
    must_be_known: bool
    prices_bind: bool


@dataclass
class ProductNotFound(NotFound):
    product_id: str
    code = "product-not-found"
    title = "There is no such product"

    @property
    def detail(self) -> str:
        return f"There is no product {self.product_id!r} in the catalogue, or it was retired."


@dataclass(frozen=True)
class Price:
    """In minor units."""

    product_id: str
    unit_price: int
    currency: str


@dataclass
class PriceDiffers(Rejected):
    """`items` are the products with the catalogue's prices."""

    items: list[Price]
    code = "price-differs"
    title = "A price is not the catalogue's"

    @property
    def detail(self) -> str:
        names = ", ".join(repr(one.product_id) for one in self.items)
        return f"{names}: a customer orders at the catalogue's price, without a discount."


def check_products(
    terms: CatalogueTerms | None, currency: str, lines: Iterable[OrderLine], charges: Iterable[Charge]
) -> None:
    """`charges` are those of the whole order: where prices bind, a discount is another price.

    Raises `ProductNotFound` and `PriceDiffers`. A product that is not there has the price that is given.
    """
    if terms is None:
        return
    discounted = any(charge.kind is ChargeKind.DISCOUNT for charge in charges)
    different: dict[str, Price] = {}
    for line in lines:
        product = terms.products.get(line.product_id)
        if product is None:
            if terms.must_be_known:
                raise ProductNotFound(line.product_id)
            continue
        if product.retired:
            raise ProductNotFound(line.product_id)
        if terms.prices_bind and (discounted or (line.unit_price, currency) != product[:2]):
            different[line.product_id] = Price(line.product_id, *product[:2])
    if different:
        raise PriceDiffers([*different.values()])
