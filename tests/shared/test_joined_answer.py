"""An answer's head and the beginning of its body leave in one write."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.flow_control import FlowControl

from shared.http.joined_answer import JoinedAnswer
from shared.http.limits import SMALL_BYTES


class _Connection(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True


def _answer(*, method: str = "GET", keep_alive: bool = True) -> tuple[_Connection, JoinedAnswer]:
    connection, logger = _Connection(), logging.getLogger(__name__)
    answer = JoinedAnswer(
        scope=cast(HTTPScope, {"method": method}),
        transport=connection,
        flow=FlowControl(connection),
        logger=logger,
        access_logger=logger,
        access_log=False,
        default_headers=[(b"date", b"now")],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: None,
    )
    return connection, answer


async def _send(answer: JoinedAnswer, *bodies: bytes, **headers: str) -> None:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await answer.send({"type": "http.response.start", "status": 200, "headers": raw})
    for number, body in enumerate(bodies, start=1):
        await answer.send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})


async def test_head_and_body_leave_in_one_write() -> None:
    connection, answer = _answer()
    await _send(answer, b"{}", content_length="2")
    assert connection.written == [b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\n\r\n{}"]
    assert (answer.response_complete, connection.is_closed) == (True, False)


async def test_what_follows_the_first_of_the_body_is_written_at_once() -> None:
    connection, answer = _answer()
    await _send(answer, b"1", b"2", b"3", content_length="3")
    assert [written[-1:] for written in connection.written] == [b"1", b"2", b"3"]


async def test_a_large_body_is_not_copied_to_its_head() -> None:
    connection, answer = _answer()
    body = bytes(SMALL_BYTES + 1)
    await _send(answer, body, content_length=str(len(body)))
    assert [len(written) for written in connection.written][1:] == [len(body)]


async def test_an_answer_without_a_body_is_its_head() -> None:
    connection, answer = _answer()
    await _send(answer, b"", content_length="0")
    assert connection.written == [b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 0\r\n\r\n"]


async def test_the_head_of_a_stream_does_not_wait_for_its_first_event() -> None:
    connection, answer = _answer()
    await _send(answer, content_type="text/event-stream")
    assert connection.written == [
        b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    ]


async def test_the_answer_to_head_has_no_body() -> None:
    connection, answer = _answer(method="HEAD")
    await _send(answer, b"{}", content_length="2")
    assert b"".join(connection.written).endswith(b"content-length: 2\r\n\r\n")


@pytest.mark.parametrize("headers", [{}, {"connection": "close"}])
async def test_the_last_answer_of_a_connection_says_so_once_and_closes_it(headers: dict[str, str]) -> None:
    connection, answer = _answer(keep_alive=False)
    await _send(answer, b"{}", content_length="2", **headers)
    assert b"".join(connection.written).count(b"connection: close\r\n") == 1
    assert connection.is_closed


@pytest.mark.parametrize(("body", "length"), [(b"{}", "1"), (b"{}", "3")])
async def test_a_body_has_the_length_that_its_head_says(body: bytes, length: str) -> None:
    _, answer = _answer()
    with pytest.raises(RuntimeError):
        await _send(answer, body, content_length=length)


@pytest.mark.parametrize("wrong", [{"etag": "a\r\nset-cookie: b"}, {"a b": "c"}])
async def test_no_header_can_hold_another(wrong: dict[str, Any]) -> None:
    connection, answer = _answer()
    with pytest.raises(RuntimeError):
        await _send(answer, b"", content_length="0", **wrong)
    assert connection.written == []
