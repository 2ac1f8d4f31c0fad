"""The sandbox, composed: `/payment` and `/carrier`, which carry out effects once and can be asked for their ledgers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import time
from typing import Annotated, Any, NamedTuple, Protocol

import msgspec
from fastapi import APIRouter, FastAPI, Header, Query, Request
from starlette.responses import Response

from command_service.gateways.messages import (
    EffectMessage,
    OutcomeMessage,
    UnreadableMessage,
    read_message,
    read_typed,
)
from command_service.gateways.registry import KINDS, GatewayKind
from command_service.gateways.sandbox.behaviour import Behaviour
from command_service.gateways.sandbox.callbacks import CallbackSender
from command_service.gateways.sandbox.carrier import CarrierService
from command_service.gateways.sandbox.errors import EffectRefused
from command_service.gateways.sandbox.ledger import Ledger
from command_service.gateways.sandbox.payment import PaymentService
from shared.aio import cancel
from shared.http.application import add_routes, create_api
from shared.identity.access import public
from shared.settings import Settings

DELAY_SECONDS = 1.0
NO_ANSWER_SECONDS = 60.0  # or until the client closes the connection
PAGE_ENTRIES = 1_000  # of the ledger

_DESCRIPTION = """\
A payment service and a carrier, for development. They fail as magic amounts say.
"""


class Service(Protocol):
    def behaviour_of(self, effect: Any) -> Behaviour | None: ...

    def carry_out(self, effect_id: str, effect: Any) -> Any: ...


def create_app(settings: Settings) -> FastAPI:
    ledger = Ledger(settings.sandbox_ledger)
    signatures = {name: kind.signatures(settings) for name, kind in KINDS.items()}
    callbacks = CallbackSender(ledger, settings.sandbox_callback_url, signatures)
    payment, carrier = PaymentService(ledger.database), CarrierService(ledger.database)
    providers = [
        _Provider(KINDS["payment"], payment, ledger, callbacks),
        _Provider(KINDS["carrier"], carrier, ledger, callbacks),
    ]

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work) for work in (callbacks.run(), *[one.run_delayed() for one in providers])]
        try:
            yield
        finally:
            await cancel(*tasks)
            ledger.close()

    app = create_api(
        title="Orders: sandbox",
        description=_DESCRIPTION,
        settings=settings,
        lifespan=lifespan,
        ready=_ready,
        has_clients=False,
    )
    add_routes(app, settings, *[one.router() for one in providers])
    return app


async def _ready() -> None:
    """Always."""


class _Provider(NamedTuple):
    """Where the effects of one kind of gateway come in."""

    kind: GatewayKind
    service: Service
    ledger: Ledger
    callbacks: CallbackSender

    async def answer(self, request: Request, effect_id: str, content: bytes) -> Response:
        """Raises `EffectRefused`."""
        name = self.kind.name
        message, effect = self._read(content)
        with self.ledger.transaction():
            requested = self.ledger.record_request(name, effect_id, message)
            if requested.message != message:
                raise EffectRefused("another effect came with this Idempotency-Key")
            if self.ledger.is_delayed(name, effect_id):
                return Response(status_code=202)
            behaviour = self.service.behaviour_of(effect) if requested.attempts == 1 else None
            if behaviour is Behaviour.DELAYED:
                self.ledger.delay(name, effect_id, time() + DELAY_SECONDS)
                return Response(status_code=202)
            if behaviour is Behaviour.FAILED_BEFORE:
                return Response(status_code=500)
            if behaviour is Behaviour.UNAVAILABLE:
                return Response(status_code=503, headers={"Retry-After": "1"})
            outcome = self._carry_out(effect_id, effect)
            if behaviour is Behaviour.DUPLICATED:
                self.callbacks.add(name, outcome, copies=3)
        if behaviour is Behaviour.FAILED_AFTER:
            return Response(status_code=500)
        if behaviour is Behaviour.NO_ANSWER:
            await _disconnected(request)
            return Response(status_code=500)
        return _json(outcome)

    def outcome(self, effect_id: str) -> Response:
        if self.ledger.is_delayed(self.kind.name, effect_id):
            return Response(status_code=202)
        outcome = self.ledger.outcome_of(self.kind.name, effect_id)
        return Response(status_code=404) if outcome is None else _json(outcome)

    async def run_delayed(self) -> None:
        """Carries out what was delayed when it is due, and sends a callback."""
        name = self.kind.name
        while True:
            for requested in self.ledger.delayed(name):
                if requested.due is not None and requested.due <= time():
                    effect = read_typed(requested.message.effect, requested.message.data, self.kind.answers)
                    with self.ledger.transaction():
                        self.ledger.delay(name, requested.effect_id, None)
                        with suppress(EffectRefused):  # because of what was done meanwhile; a repetition is answered so
                            self.callbacks.add(name, self._carry_out(requested.effect_id, effect))
            await asyncio.sleep(DELAY_SECONDS / 10)

    def _carry_out(self, effect_id: str, effect: Any) -> OutcomeMessage:
        """Once. Raises `EffectRefused`."""
        known = self.ledger.outcome_of(self.kind.name, effect_id)
        return known or self.ledger.record(self.kind.name, effect_id, self.service.carry_out(effect_id, effect))

    def _read(self, content: bytes) -> tuple[EffectMessage, Any]:
        try:
            message = read_message(content, EffectMessage)
            return message, read_typed(message.effect, message.data, self.kind.answers)
        except UnreadableMessage as error:
            raise EffectRefused(str(error)) from error

    def router(self) -> APIRouter:
        router = APIRouter(prefix=f"/{self.kind.name}", tags=[self.kind.name])

        @router.post("/effects", summary="Carry out an effect, once for each Idempotency-Key")
        @public
        async def carry_out(
            request: Request, idempotency_key: Annotated[str, Header(min_length=1, max_length=200)]
        ) -> Response:
            return await self.answer(request, idempotency_key, await request.body())

        @router.get("/effects/{effect_id}", summary="The outcome of an effect; 404: it was not carried out")
        @public
        async def outcome(effect_id: str) -> Response:
            return self.outcome(effect_id)

        @router.get("/ledger", summary="The effects that were carried out, in order")
        @public
        async def entries(process_id: str = "", after: Annotated[int, Query(ge=0)] = 0) -> Response:
            return _json(self.ledger.entries(self.kind.name, process_id, after, PAGE_ENTRIES))

        return router


async def _disconnected(request: Request) -> None:
    try:
        async with asyncio.timeout(NO_ANSWER_SECONDS):
            while (await request.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        pass


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
