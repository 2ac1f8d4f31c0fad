"""A projector whose code is not the live generation's waits, and is ready for as long as another does the work."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

import httpx
import pytest

from projector import projector_process
from projector.projections import PROJECTIONS
from shared.settings import Settings
from tests.catalogue import OF_CATALOGUE
from tests.orders import placed
from tests.recording import Recorder
from tests.running import eventually, is_ready, running_projector, running_query_service

STALE_SECONDS = 1.0
NEWER = {
    name: one._replace(projection=replace(one.projection, version=one.projection.version + 1))
    for name, one in PROJECTIONS.items()
}
REFUSED = "generation 1 is folded by version {} of the projection's code, this is version {}"
REFUSALS = [REFUSED.format(one.projection.version, one.projection.version + 1) for one in PROJECTIONS.values()]


async def readiness(projector: httpx.AsyncClient) -> str:
    """Empty: it is ready."""
    answer = await projector.get("/readyz")
    return "" if answer.status_code == 200 else str(answer.json()["detail"])


@pytest.mark.promise(
    "rebuilds", "A projector that waits for other code is ready only while another works, and says why not"
)
async def test_a_newer_projector_is_ready_while_the_old_one_works_and_says_why_nobody_does_afterwards(
    settings: Settings, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = settings.model_copy(update={"heartbeat_stale_seconds": STALE_SECONDS})
    async with AsyncExitStack() as running:
        queries = await running.enter_async_context(running_query_service(settings))

        async def told() -> list[tuple[str, str | None, int]]:
            """By each read model: what its projector does, what keeps it, and up to where it is."""
            statuses = (await queries.get("/projections")).json()["projections"]
            assert [one["name"] for one in statuses] == [*PROJECTIONS]
            return [(one["projector_state"], one["stuck_because"], one["checkpoint"]) for one in statuses]

        async def at_work(position: int) -> bool:
            """Those of the catalogue's feed show that it is empty."""
            positions = [0 if name in OF_CATALOGUE else position for name in PROJECTIONS]
            return await told() == [("active", None, one) for one in positions]

        async with running_projector(ours):
            before = await recorder.record("42", placed())
            await eventually(lambda: at_work(before))
            monkeypatch.setattr(projector_process, "PROJECTIONS", NEWER)
            projector = await running.enter_async_context(running_projector(ours))
            monkeypatch.undo()
            await eventually(lambda: is_ready(projector))
            await eventually(lambda: at_work(before))

        async def nobody_works() -> bool:
            reason = await readiness(projector)
            return all(
                f"{one.projection.name}: Waiting for the projector: no heartbeat" in reason for one in NEWER.values()
            )

        await eventually(nobody_works)
        reason = await readiness(projector)
        assert all(reason.count(refusal) == REFUSALS.count(refusal) for refusal in REFUSALS)
        after = await recorder.record("43", placed())

        async def said() -> bool:
            by_model = zip(REFUSALS, await told(), strict=True)
            return all(state == "waiting" and refusal in (why or "") for refusal, (state, why, _) in by_model)

        await eventually(said)
        assert {position for *_, position in await told()} == {0, before}, "it touches nothing"
        for status in (await queries.get("/projections")).json()["projections"]:
            assert status["heartbeat_age_ms"] > STALE_SECONDS * 1_000, "an excuse is no heartbeat"

        async with running_projector(ours):
            await eventually(lambda: at_work(after))
            await eventually(lambda: is_ready(projector))
