"""How a client of the query service reads."""

from __future__ import annotations

from typing import Any

import httpx

from shared.aggregates.order import ORDER
from shared.eventstore.log import read_head
from tests.recording import Recorder


async def token_now(recorder: Recorder) -> str:
    """The token of the log's end."""
    return (await read_head(recorder.connection)).token.encode()


def etag(version: int, token: str, document_version: int = ORDER.document_version) -> str:
    """Of an order, in an answer with that token."""
    return f'"{version}-{document_version}-{token[:32]}"'


async def get(queries: httpx.AsyncClient, path: str, recorder: Recorder, **headers: str) -> httpx.Response:
    """The answer, once the read model has reached the log's end."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return await queries.get(path, headers={"Consistency-Token": await token_now(recorder), **headers})


async def pages(queries: httpx.AsyncClient, path: str, recorder: Recorder, **parameters: Any) -> list[list[str]]:
    """The order ids of every page, following `Link: rel="next"`."""
    out = []
    answer = await queries.get(path, params=parameters, headers={"Consistency-Token": await token_now(recorder)})
    while True:
        assert answer.status_code == 200, answer.text
        out.append([order["order_id"] for order in answer.json()["orders"]])
        if "next" not in answer.links:
            assert answer.json()["next_cursor"] is None
            return out
        answer = await queries.get(answer.links["next"]["url"])
