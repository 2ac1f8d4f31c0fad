"""What operators do about a process that is stuck, or is to give up."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import ConfigDict, Field, StringConstraints, model_validator
from starlette.responses import Response

from command_service.api.bodies import CommandBody
from command_service.api.commands import ANY_CHANGE, CommandRoute, carry_out, describe
from command_service.processes import interventions
from command_service.processes.interventions import (
    CompensateProcess,
    NotCompensable,
    OutcomeNotOffered,
    ProcessAlreadyEnded,
    ProcessFailsAgain,
    ProcessNotFound,
    ProcessNotStuck,
    RetryProcess,
    StepNotFound,
)
from shared.aggregates.process import PROCESS
from shared.http.fields import ProcessId
from shared.http.openapi import Described
from shared.identity.access import allowed
from shared.identity.caller import Role

DESCRIPTION = "What operators do about processes that are stuck. `docs/processes.md` says when to do which."
router = APIRouter(tags=["processes"], route_class=CommandRoute)

_EXAMPLE = PROCESS.example_id
_ANY_PROCESS: tuple[Described, ...] = (
    *ANY_CHANGE,
    (ProcessNotFound(_EXAMPLE), "There is no such process."),
    (ProcessFailsAgain(_EXAMPLE, "KeyError('1')"), "What follows fails again; nothing was done."),
)
_NOT_STUCK: Described = (ProcessNotStuck(_EXAMPLE, "running"), "The process is running, or has ended.")

AnyProcessId = Annotated[ProcessId, Path(description="`<kind>-<id of its subject>`", examples=[_EXAMPLE])]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", min_length=1, max_length=64)]


class RetryBody(CommandBody):
    pass


class CompensateBody(CommandBody):
    pass


class SkipBody(CommandBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"outcome": "Refunded", "data": {}}]})
    outcome: Name | None = Field(None, description="that the process goes on with", examples=["Refunded"])
    data: dict[str, Any] = Field(default_factory=dict, description="of the outcome, such as its `tracking_number`")
    effect_id: ProcessId | None = Field(None, description="where the process waits for several answers")
    timer: Name | None = Field(None, description="instead of `outcome`: this timer is not waited for any more")

    @model_validator(mode="after")
    def _one_step(self) -> SkipBody:
        if (self.outcome is None) == (self.timer is None):
            raise ValueError("give either outcome or timer")
        return self

    def command(self, process_id: str) -> interventions.SkipStep | interventions.SkipTimer:
        if self.outcome is None:
            assert self.timer is not None
            return interventions.SkipTimer(process_id, self.timer)
        return interventions.SkipStep(process_id, self.outcome, self.data, self.effect_id)


_RETRY, _COMPENSATE = RetryBody(occurred_at=None), CompensateBody(occurred_at=None)


@router.post("/processes/{process_id}/retry", summary="Retry a stuck process", **describe(*_ANY_PROCESS, _NOT_STUCK))
@allowed(Role.OPERATOR, Role.STAFF)
async def retry_process(request: Request, process_id: AnyProcessId, body: RetryBody = _RETRY) -> Response:
    """It takes in events, answers and timers again, and asks anew for what was declined. The body may be left out."""
    return await carry_out(request, RetryProcess(process_id), body)


@router.post(
    "/processes/{process_id}/skip",
    summary="Skip the step that a process is stuck on",
    **describe(
        *_ANY_PROCESS,
        _NOT_STUCK,
        (
            StepNotFound(_EXAMPLE, {f"{_EXAMPLE}-4": "TrackParcel", f"{_EXAMPLE}-5": "TrackParcel"}, ["track"]),
            "The process waits for several answers, or for nothing of that name.",
        ),
        (
            OutcomeNotOffered("Refund", ["Refunded", "Declined"], "'Captured' is none of them"),
            "The step has no such outcome, or its data is another.",
        ),
    ),
)
@allowed(Role.OPERATOR, Role.STAFF)
async def skip_step(request: Request, process_id: AnyProcessId, body: SkipBody) -> Response:
    """The process goes on as if its gateway had given the outcome. The step is the effect without an answer, else the
    one that the process would ask for when it is retried; the gateway is not called for it. Ask the provider what it
    did under the effect's id first: what you say is what the process, and the order, go by."""
    return await carry_out(request, body.command(process_id), body)


@router.post(
    "/processes/{process_id}/compensate",
    summary="Have a process give back what it took",
    **describe(
        *_ANY_PROCESS,
        (ProcessAlreadyEnded(_EXAMPLE, "delivered"), "The process has ended."),
        (NotCompensable(_EXAMPLE), "What it did cannot be taken back, such as a parcel that has left."),
    ),
)
@allowed(Role.OPERATOR, Role.STAFF)
async def compensate_process(
    request: Request, process_id: AnyProcessId, body: CompensateBody = _COMPENSATE
) -> Response:
    """Stuck or running, it gives back what it took, and ends: a fulfilment cancels its order, unpacks, voids and
    refunds. The body may be left out."""
    return await carry_out(request, CompensateProcess(process_id), body)
