"""The baseline of rows 3 and 4: a FastAPI service that validates the same body and answers a constant.

`python -m bench.bare_route PORT BYTES` runs it in one process, on the same HTTP server with the same settings.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StringConstraints

from bench.load import ROOT
from cli.stack.embedded_server import free_port
from cli.stack.processes import launch
from cli.stack.service import Service
from command_service.api.bodies import AddressBody, ShortText
from command_service.api.order_bodies import ChargeBody, Metadata, Sku
from shared.currencies import CURRENCIES
from shared.http.fields import Id, ProductId, Rfc3339

_ACKNOWLEDGEMENT = (
    b'{"command_id":"019ab2f4-7c1e-7d35-9d2c-6a2f7a1c9b10","aggregate_id":"019ab2f4-7c1e-7d35-9d2c-6a2f7a1c9b10",'
    b'"version":1,"position":1042,"consistency_token":"5f0c6f5e0d3c4e0fb7a1d0f8f2d0a9c4-1042"}'
)


def _known(code: str) -> str:
    if code not in CURRENCIES:
        raise ValueError("should be an ISO 4217 currency code, such as GBP")
    return code


Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=500)]
Currency = Annotated[
    str, AfterValidator(_known), Field(pattern=r"^[A-Z]{3}$", json_schema_extra={"enum": sorted(CURRENCIES)})
]


# A copy of the service's rules: when the service validates faster, the baseline stays the same.
class OrderItem(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    product_id: ProductId
    product_name: Text | None = None
    quantity: Annotated[StrictInt, Field(ge=1, le=1_000_000)]
    unit_price: Annotated[StrictInt, Field(ge=0, le=1_000_000_000_000)]
    line_id: Id | None = None
    sku: Sku | None = None
    metadata: Metadata | None = None


class PlaceOrder(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    occurred_at: Rfc3339 | None = None
    order_id: Id | None = None
    customer_id: Id
    currency: Currency
    items: Annotated[list[OrderItem], Field(min_length=1, max_length=2_000)]
    shipping_address_id: Id
    charges: Annotated[list[ChargeBody], Field(max_length=2_000)] = []
    shipping_address: AddressBody | None = None
    external_reference: ShortText | None = None
    note: Annotated[Text, StringConstraints(max_length=2_000)] | None = None
    metadata: Metadata | None = None


def create_app(answer_bytes: int) -> FastAPI:
    app = FastAPI(openapi_url=None)
    document = b'"' + b"x" * (answer_bytes - 2) + b'"'

    @app.post("/orders")
    async def place(body: PlaceOrder) -> Response:  # noqa: ARG001 - only validated
        return Response(_ACKNOWLEDGEMENT, 201, media_type="application/json")

    @app.get("/orders/{order_id}")
    async def read(order_id: str) -> Response:  # noqa: ARG001
        return Response(document, media_type="application/json")

    @app.get("/readyz")
    async def readyz() -> Response:
        return Response(b'{"status":"ready"}', media_type="application/json")

    return app


class BareService(Service):
    """The baseline as a process."""

    def __init__(self, directory: Path, answer_bytes: int = 512) -> None:
        port = free_port()
        super().__init__("bare", port, directory / f"bare-{port}.log", {})
        self._answer_bytes = answer_bytes

    def spawn(self) -> None:
        """Launch `python -m bench.bare_route`."""
        command = [sys.executable, "-m", "bench.bare_route", str(self.port), str(self._answer_bytes)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = launch(command, log=self.log, env=environment, death_signal=signal.SIGTERM)


def main() -> None:
    port, answer_bytes = map(int, sys.argv[1:])
    uvicorn.run(
        create_app(answer_bytes),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()
