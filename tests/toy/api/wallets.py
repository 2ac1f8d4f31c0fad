"""The commands of wallets over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import Field, StrictInt
from starlette.responses import Response

from command_service.api.bodies import CommandBody, Text
from command_service.api.commands import ANY_CHANGE, CommandRoute, carry_out, describe
from shared.http.fields import Id
from shared.identity.access import allowed
from shared.identity.caller import Role
from tests.toy.domain import wallet

DESCRIPTION = "A wallet holds money and never owes any."
router = APIRouter(tags=["wallets"], route_class=CommandRoute)

WalletId = Annotated[Id, Path(examples=["savings"])]
Amount = Annotated[StrictInt, Field(ge=1, le=1_000_000, description="minor units")]

_TOO_LITTLE = (409, "too-little-in-wallet", "The wallet holds less than the amount.")


class DepositBody(CommandBody):
    owner_id: Id
    amount: Amount
    note: Text


class TransferBody(CommandBody):
    to: Id
    amount: Amount
    note: Text


@router.post("/wallets/{wallet_id}/deposits", summary="Put money in", **describe(*ANY_CHANGE))
@allowed(Role.STAFF)
async def deposit(request: Request, wallet_id: WalletId, body: DepositBody) -> Response:
    command = wallet.Deposit(wallet_id, body.amount, body.note, body.owner_id)
    return await carry_out(request, command, body)


@router.post("/wallets/{wallet_id}/transfers", summary="Move money", **describe(*ANY_CHANGE, _TOO_LITTLE))
@allowed(Role.STAFF)
async def transfer(request: Request, wallet_id: WalletId, body: TransferBody) -> Response:
    """To another wallet: both change, or neither."""
    command = wallet.Transfer(wallet_id, body.to, body.amount, body.note)
    return await carry_out(request, command, body)
