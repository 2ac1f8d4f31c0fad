"""Consistency tokens: an answer is never older than the token, and the wait costs no polling."""

from __future__ import annotations

import asyncio
import re
from time import monotonic
from uuid import uuid4

import httpx
import pytest
from redis.asyncio import Redis

from shared.eventstore.log import read_head
from shared.eventstore.token import ConsistencyToken
from shared.settings import Settings
from tests.given_when_then import problem
from tests.orders import paid, placed
from tests.query_service.reads import token_now
from tests.query_service.redis_read_model import checkpoint
from tests.recording import Recorder
from tests.running import eventually, running_projector


async def test_an_answer_to_a_token_shows_what_the_token_stands_for(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    for number in range(200):
        order_id = str(number)
        await recorder.record(order_id, placed())
        answer = await queries.get(f"/orders/{order_id}", headers={"Consistency-Token": await token_now(recorder)})
        assert answer.status_code == 200


@pytest.mark.promise("queries", "With the tokens of earlier answers, reads never go backwards")
async def test_the_token_of_an_answer_never_makes_reads_go_backwards(
    queries_alone: httpx.AsyncClient, recorder: Recorder, redis: Redis, settings: Settings
) -> None:
    """Again and again Redis is put back to its oldest copy: only the token keeps the next answer from being older."""
    await recorder.record("42", placed())
    versions: list[int] = []
    tokens = [await token_now(recorder)]
    oldest: dict[bytes, bytes] = {}

    async def read() -> None:
        headers = {"Consistency-Token": tokens[-1], "Prefer": "wait=20"}
        answer = await queries_alone.get("/orders/42", headers=headers)
        assert answer.status_code == 200
        versions.append(answer.json()["version"])
        tokens.append(answer.headers["consistency-token"])

    for _ in range(3):
        reads = await _reads(queries_alone)
        reading = asyncio.create_task(read())

        async def has_begun(reads: float = reads, reading: asyncio.Task[None] = reading) -> bool:
            """It has read what is older than the token, or has the answer."""
            return reading.done() or await _have_read(queries_alone, reads + 1)

        await eventually(has_begun)
        async with running_projector(settings):
            await reading
            oldest = oldest or await _copy_of(redis)
            writing = asyncio.create_task(_pay_slowly(recorder))
            while not writing.done():
                await read()
            tokens.append(await token_now(recorder))
            await read()
        await _put_back(redis, oldest)

    assert versions == sorted(versions)
    assert versions[0] == 1
    assert versions[-1] > 30
    positions = [ConsistencyToken.decode(token).position for token in tokens]
    assert positions == sorted(positions)


async def _copy_of(redis: Redis) -> dict[bytes, bytes]:
    return {key: value async for key in redis.scan_iter() if (value := await redis.dump(key)) is not None}


async def _put_back(redis: Redis, copy: dict[bytes, bytes]) -> None:
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.flushall()
        for key, value in copy.items():
            pipeline.restore(key, 0, value)
        await pipeline.execute()


async def _pay_slowly(recorder: Recorder) -> None:
    for _ in range(10):
        await recorder.record("42", paid())


@pytest.mark.promise("queries", "A token that is not reached in time is answered 503, never with an older state")
async def test_a_token_that_is_not_reached_in_time_is_503(lagging: httpx.AsyncClient, recorder: Recorder) -> None:
    await recorder.record("42", placed())
    headers = {"Consistency-Token": await token_now(recorder), "Prefer": "wait=1"}

    started = monotonic()
    paths = ("/orders/42", "/orders", "/customers/alice/orders")
    answers = await asyncio.gather(*(lagging.get(path, headers=headers) for path in paths))

    assert 1 <= monotonic() - started < 5
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "projection-lagging")
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_query_that_waits_is_answered_when_the_read_model_gets_there(
    lagging: httpx.AsyncClient, recorder: Recorder, settings: Settings
) -> None:
    await recorder.record("42", placed())
    headers = {"Consistency-Token": await token_now(recorder), "Prefer": "wait=20"}

    before = await _reads(lagging)
    waiting = [asyncio.create_task(lagging.get("/orders/42", headers=headers)) for _ in range(50)]
    await eventually(lambda: _have_read(lagging, before + 50))  # and found that it is not there yet
    async with running_projector(settings):
        for answer in await asyncio.gather(*waiting):
            assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=20")


async def _metric(queries: httpx.AsyncClient, sample: str) -> float:
    """As the service shows it; 0 where it does not."""
    found = re.search(rf"^{re.escape(sample)} (\S+)$", (await queries.get("/metrics")).text, re.MULTILINE)
    return 0.0 if found is None else float(found[1])


async def _reads(queries: httpx.AsyncClient) -> float:
    """How often a query has read the read model."""
    return await _metric(queries, "orders_redis_batch_reads_sum")


async def _have_read(queries: httpx.AsyncClient, times: float) -> bool:
    return await _reads(queries) >= times


async def test_the_answer_carries_the_wait_that_was_granted(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    token = await token_now(recorder)
    for prefer, applied in (("wait=5", "wait=5"), ("wait=31", "wait=30"), ("wait=soon", None)):
        answer = await queries.get("/orders", headers={"Consistency-Token": token, "Prefer": prefer})
        assert (answer.status_code, answer.headers.get("preference-applied")) == (200, applied)


@pytest.mark.promise("queries", "A query may name several tokens, and waits for the newest")
async def test_an_answer_to_several_tokens_shows_what_the_newest_stands_for(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    tokens = [await token_now(recorder)]
    for _ in range(20):
        await recorder.record("42", placed() if len(tokens) == 1 else paid())
        tokens.append(await token_now(recorder))
        for path in ("/orders/42", "/orders", "/orders/42/history"):
            answer = await queries.get(path, headers={"Consistency-Token": ", ".join([tokens[-1], *tokens[:-1]])})
            assert answer.status_code == 200
            assert ConsistencyToken.decode(answer.headers["consistency-token"]).position >= len(tokens) - 1
        assert (await queries.get("/orders/42", headers={"Consistency-Token": ",".join(tokens)})).json()[
            "version"
        ] == len(tokens) - 1


async def test_after_a_restore_of_the_log_its_tokens_beside_those_of_before_are_refused(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    """As `client.js` sends them: it drops them all when it is told so."""
    before, now = ConsistencyToken(uuid4(), 7).encode(), await token_now(recorder)
    for path in ("/orders/42", "/orders", "/orders/42/history"):
        for tokens in (f"{before}, {now}", f"{now}, {before}"):
            answer = await queries.get(path, headers={"Consistency-Token": tokens})
            assert (answer.status_code, answer.json()["code"]) == (400, "unknown-log")


@pytest.mark.promise("queries", "A malformed token, or one of another log, is refused at once")
async def test_a_token_that_is_malformed_or_of_another_log_is_refused_at_once(queries: httpx.AsyncClient) -> None:
    foreign = ConsistencyToken(uuid4(), 0).encode()
    for path in ("/orders/42", "/orders", "/customers/alice/orders"):
        for token, code in (("", "malformed-token"), ("x", "malformed-token"), (foreign, "unknown-log")):
            answer = await queries.get(path, headers={"Consistency-Token": token})
            assert (answer.status_code, answer.json()["code"]) == (400, code)


@pytest.mark.promise("queries", "A token beyond the head of the log is refused at once, however long it would wait")
async def test_a_token_beyond_the_head_of_the_log_is_refused_at_once(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    await recorder.record("42", placed())
    head = await read_head(recorder.connection)
    paths = ("/orders/42", "/orders", "/customers/alice/orders", "/orders/42/history", "/orders/42/events")
    started = monotonic()
    for position in (head.position + 1, 2**63 - 1):
        headers = {"Consistency-Token": ConsistencyToken(head.log_id, position).encode(), "Prefer": "wait=30"}
        for path in (*paths, "/reports/revenue?from=2011-01-01&to=2011-01-31"):
            answer = await queries.get(path, headers=headers)
            body = problem(answer, 400, "token-beyond-log")
            assert (int(body["position"]), body["head"]) == (position, head.position)
    assert monotonic() - started < 5


async def test_without_a_read_model_nothing_is_claimed_about_orders(queries_alone: httpx.AsyncClient) -> None:
    for path in ("/orders/42", "/orders", "/customers/alice/orders"):
        answer = await queries_alone.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "projection-rebuilding")
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_token_of_this_log_is_not_unknown_while_redis_still_shows_another(
    queries_alone: httpx.AsyncClient, recorder: Recorder, redis: Redis
) -> None:
    await redis.hset("{orders.0}:meta", mapping=checkpoint(7, uuid4()))
    headers = {"Consistency-Token": await token_now(recorder), "Prefer": "wait=0"}

    answer = await queries_alone.get("/orders/42", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (503, "projection-rebuilding")


@pytest.mark.promise("queries", "A token of a log id that was just given is accepted")
async def test_a_token_of_a_new_log_id_is_accepted_although_that_id_was_foreign_before(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    """The log was given a new id, which neither the projector nor the query service knows."""
    foreign = {"Consistency-Token": ConsistencyToken(uuid4(), 0).encode()}
    assert (await queries.get("/orders/42", headers=foreign)).status_code == 400
    old = {"Consistency-Token": await token_now(recorder)}
    await recorder.connection.execute("select give_new_log_id('restored')")
    await recorder.record("42", placed())
    new = {"Consistency-Token": await token_now(recorder), "Prefer": "wait=20"}

    assert (await queries.get("/orders/42", headers=new)).status_code == 200
    answer = await queries.get("/orders/42", headers=old)
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown-log")


async def test_a_read_model_that_is_catching_up_is_503_and_serves_queries_that_wait(
    queries_alone: httpx.AsyncClient, recorder: Recorder, redis: Redis, settings: Settings
) -> None:
    await recorder.record("42", placed())
    log_id = (await read_head(recorder.connection)).log_id
    await redis.hset("{orders.0}:meta", mapping=checkpoint(0, log_id, ready_at=1) | {"hash": ""})
    assert (await queries_alone.get("/orders/42")).json()["code"] == "projection-rebuilding"

    headers = {"Consistency-Token": ConsistencyToken(log_id, 0).encode(), "Prefer": "wait=20"}
    waiting = asyncio.create_task(queries_alone.get("/orders/42", headers=headers))
    async with running_projector(settings):
        assert (await waiting).status_code == 200


async def test_a_lost_publication_delays_waiting_queries_but_does_not_strand_them(
    lagging: httpx.AsyncClient, recorder: Recorder, redis: Redis
) -> None:
    position = await recorder.record("42", placed())
    headers = {"Consistency-Token": await token_now(recorder), "Prefer": "wait=20"}
    before = await _reads(lagging)
    waiting = asyncio.create_task(lagging.get("/orders", headers=headers))
    await eventually(lambda: _have_read(lagging, before + 1))

    await redis.hset("{orders.0}:meta", "position", str(position))  # without a message

    assert (await asyncio.wait_for(waiting, 5)).status_code == 200


async def test_a_redis_that_was_rolled_back_is_not_believed_to_be_where_it_was(
    queries: httpx.AsyncClient, recorder: Recorder, redis: Redis
) -> None:
    """The message said that position 1 is there; then Redis loses it."""
    await recorder.record("42", placed())
    token = await token_now(recorder)
    headers = {"Consistency-Token": token, "Prefer": "wait=20"}
    assert (await queries.get("/orders/42", headers=headers)).status_code == 200

    await redis.flushall()

    # Built again by the projector: until then no answer, in particular no 404.
    assert (await queries.get("/orders/42", headers=headers)).status_code == 200


async def test_waiting_does_not_poll_per_request(lagging: httpx.AsyncClient, recorder: Recorder, redis: Redis) -> None:
    await recorder.record("42", placed())
    headers = {"Consistency-Token": await token_now(recorder), "Prefer": "wait=1"}

    async def round_trips() -> int:
        return int((await redis.info("commandstats"))["cmdstat_evalsha"]["calls"])

    reads_before, trips_before = await _reads(lagging), await round_trips()
    answers = await asyncio.gather(*(lagging.get("/orders/42", headers=headers) for _ in range(100)))

    assert {answer.status_code for answer in answers} == {503}
    assert 100 <= await _reads(lagging) - reads_before < 200  # one read each, before it waits
    # Coalesced; what the projector does meanwhile is in the figure as well.
    assert await round_trips() - trips_before < 100


async def test_the_metrics_tell_how_waits_ended(
    lagging: httpx.AsyncClient, recorder: Recorder, settings: Settings
) -> None:
    outcomes = [f'orders_token_waits_total{{outcome="{outcome}"}}' for outcome in ("immediate", "waited", "gave-up")]
    waits = "orders_token_wait_seconds_count", "orders_token_wait_seconds_sum"

    async def counted() -> list[float]:
        return [await _metric(lagging, sample) for sample in (*outcomes, *waits)]

    async def ask(position: int, wait: int) -> int:
        headers = {"Consistency-Token": ConsistencyToken(log_id, position).encode(), "Prefer": f"wait={wait}"}
        return (await lagging.get("/orders", headers=headers)).status_code

    await recorder.record("42", placed())
    log_id = (await read_head(recorder.connection)).log_id
    before, reads = await counted(), await _reads(lagging)
    assert await ask(0, wait=20) == 200
    assert await ask(1, wait=0) == await ask(1, wait=0) == 503
    waiting = asyncio.create_task(ask(1, wait=20))
    await eventually(lambda: _have_read(lagging, reads + 4))
    async with running_projector(settings):
        assert await waiting == 200

    *numbers, seconds = [now - then for now, then in zip(await counted(), before, strict=True)]
    assert numbers == [1, 1, 2, 1]
    assert 0 < seconds < 20
