"""Expires the reservations of orders that were not confirmed within RESERVATION_MINUTES.

Follows the log from a checkpoint in PostgreSQL: what was reserved earlier falls due earlier, so no timers are kept.
Every command service does it; a reservation that two of them expire expires once (decision 50).
"""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta

import asyncpg
from uuid_utils.compat import uuid7

from command_service.decision import CommandMetadata
from command_service.domain.order import ExpireReservation
from command_service.handler import Handler
from shared.aggregates.order import (
    ORDER,
    OrderCancelled,
    OrderConfirmed,
    OrderItemsReserved,
    OrderReservationExpired,
    PaymentConfirmed,
)
from shared.errors import Corrupt, OrdersError
from shared.eventstore import log as event_log
from shared.eventstore.log import Connection
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST
from shared.settings import Settings

MAX_INTERVAL_SECONDS = 10.0
_SLICE = 10_000  # events that a query looks through

_CHECKPOINT = "select position from reservation_expiry"
_FINISH = "select finish_reservation_expiry($1)"
_ENDS = [event.__name__ for event in (OrderConfirmed, PaymentConfirmed, OrderCancelled, OrderReservationExpired)]
_OPEN = """
select distinct e.stream_id from events e
where e.position > $1 and e.position <= $2 and e.event_type = $3
  and not exists (select from events later where later.stream_id = e.stream_id and later.version > e.version
                  and later.event_type = any($4))
"""

_log = get_logger()


async def run(log: Connection, handler: Handler, settings: Settings) -> None:
    """Until cancelled; returns at once where reservations are for ever. After an error it tries again."""
    if not settings.reservation_minutes:
        return
    after = timedelta(minutes=settings.reservation_minutes)
    interval = min(MAX_INTERVAL_SECONDS, after.total_seconds() / 4)
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5) * interval)  # the processes are not in step
        try:
            if expired := await expire_due(log, handler, after):
                _log.info("reservations expired", orders=expired)
        except (*CONNECTION_LOST, asyncpg.PostgresError, OrdersError) as error:
            _log.warning("reservations not expired", error=repr(error))


async def expire_due(log: Connection, handler: Handler, after: timedelta) -> int:
    """Expires what was reserved so long ago; returns of how many orders. An order that cannot be read is logged and
    left out. Raises what else the handler raises."""
    head = (await event_log.read_head(log)).position
    due = await event_log.position_at(log, datetime.now(UTC) - after, head, inclusive=True)
    checkpoint: int = await log.fetchval(_CHECKPOINT)
    expired = 0
    while checkpoint < due:
        up_to = min(checkpoint + _SLICE, due)
        for row in await log.fetch(_OPEN, checkpoint, up_to, OrderItemsReserved.__name__, _ENDS):
            order_id = ORDER.id_of(row["stream_id"])
            assert order_id is not None
            try:
                await handler.handle(ExpireReservation(order_id), CommandMetadata(correlation_id=str(uuid7())))
                expired += 1
            except Corrupt as error:  # the others are not kept waiting for a repair
                _log.error("reservation not expired", order_id=order_id, error=error.detail)
        await log.execute(_FINISH, checkpoint := up_to)
    return expired
