"""Callbacks: a gateway says what came of an effect."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from command_service.api.bodies import ShortText
from command_service.api.commands import CommandRoute
from command_service.append_queue import AppendQueueFull
from command_service.gateways.messages import UnreadableMessage, read_typed
from command_service.gateways.registry import KINDS
from command_service.gateways.signatures import HEADERS, WINDOW_SECONDS, CallbackRefused, Signatures
from command_service.group_commit import AppendOutcomeUnknown, LogUnavailable, ShuttingDown
from command_service.handler import Handler, VersionConflict
from command_service.processes.requested_effect import find_requested
from command_service.processes.worker import ProcessWorker
from shared.errors import Invalid, NotFound
from shared.eventstore.store import PostgresEventStore
from shared.http.openapi import UNREADABLE, responses
from shared.http.request_headers import headers_of
from shared.identity.access import public
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST

DESCRIPTION = "What payment services and carriers tell us."
router = APIRouter(tags=["gateways"], route_class=CommandRoute)

_log = get_logger()

GatewayName = Annotated[Literal["payment", "carrier"], Path(examples=["payment"])]
_DESCRIBED = (
    "unique for the callback",
    f"Unix time, within {WINDOW_SECONDS} s of ours",
    "`v1,` and the HMAC, in base64",
)
_EXAMPLES = ("msg_01ke9x0c2v", "1769869800", "v1,3dSCcSAcdkBrBMMVT0yQmYFZyAOtKc2XyUzd1rYvVbg=")


@dataclass
class EffectNotFound(NotFound):
    effect_id: str
    code = "effect-not-found"
    title = "No process asked this gateway for the effect"

    @property
    def detail(self) -> str:
        return f"No process asked this gateway for {self.effect_id!r}."


@dataclass
class OutcomeUnexpected(Invalid):
    outcome: str
    reason: str
    code = "outcome-unexpected"
    title = "The outcome is none that answers the effect"

    @property
    def detail(self) -> str:
        return f"{self.outcome!r} does not answer the effect: {self.reason}."


class OutcomeBody(BaseModel):
    effect_id: ShortText = Field(examples=["fulfilment-536365-1"])
    outcome: ShortText = Field(examples=["Authorised"])
    data: dict[str, Any] = Field(examples=[{"in_review": False}])


class CallbackBody(BaseModel):
    """Fields that are unknown are ignored: a gateway may add some."""

    type: Literal["effect.answered"] = Field(examples=["effect.answered"])
    timestamp: datetime = Field(examples=["2026-01-31T14:30:00Z"])
    data: OutcomeBody


@router.post(
    "/gateways/{gateway}/events",
    summary="Take a callback",
    status_code=204,
    response_class=Response,
    responses={
        204: {"description": "The outcome is in the log, or changes nothing"},
        **responses(
            (400, "malformed-json", "The body is not JSON."),
            (
                CallbackRefused("No matching signature found"),
                "The signature is missing, false, or older than 5 minutes.",
            ),
            (EffectNotFound("fulfilment-536365-1"), "No process asked this gateway for the effect."),
            (VersionConflict(9), "Other commands kept changing the same data; send it again."),
            (413, "body-too-large", "The body is larger than 512 KiB."),
            (415, "unsupported-media-type", "The body is not application/json."),
            (422, "invalid-request", "A value is missing or out of bounds; `errors` points at it."),
            (OutcomeUnexpected("Captured", "'Captured' is not expected here"), "The outcome answers other effects."),
            (LogUnavailable(), "The event log cannot be reached; nothing was done."),
            (AppendQueueFull(1_000), "Too many commands are waiting; nothing was done."),
            (ShuttingDown(), "The process is stopping; nothing was done."),
            (
                AppendOutcomeUnknown("019ab2f4-7c1e-7d35-9d2c-6a2f7a1c9b10"),
                "The log was lost on the way; send it again.",
            ),
            *UNREADABLE,
        ),
    },
    openapi_extra={
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "description": described,
                "schema": {"type": "string"},
                "example": example,
            }
            for name, described, example in zip(HEADERS, _DESCRIBED, _EXAMPLES, strict=True)
        ]
    },
)
@public  # the signature says who it is from
async def take_callback(request: Request, gateway: GatewayName, body: CallbackBody) -> Response:
    """Signed as [Standard Webhooks](https://www.standardwebhooks.com) says, with a secret of the gateway. A callback
    that comes again, or after an answer, changes nothing."""
    await _verify(request, gateway)
    given = body.data
    try:
        requested = await find_requested(PostgresEventStore(request.app.state.pool), given.effect_id)
    except CONNECTION_LOST as error:
        raise LogUnavailable from error
    answers = KINDS[gateway].answers
    if requested is None or requested.effect_type not in answers:
        raise EffectNotFound(given.effect_id)
    try:
        outcome = read_typed(given.outcome, given.data, answers[requested.effect_type])
    except UnreadableMessage as error:
        raise OutcomeUnexpected(given.outcome, str(error)) from error
    handler: Handler = request.app.state.handler
    await ProcessWorker(handler.handle, {}, ()).record(requested.pending, outcome)
    return Response(status_code=204)


async def _verify(request: Request, gateway: str) -> None:
    """Raises `CallbackRefused`."""
    signatures: Signatures = request.app.state.signatures[gateway]
    headers = headers_of(request.scope)
    given = {name: headers[name.encode()].decode("latin-1") for name in HEADERS if name.encode() in headers}
    try:
        signatures.verify(given, await request.body())
    except CallbackRefused as refused:
        _log.warning("callback refused", gateway=gateway, reason=refused.reason)
        raise
