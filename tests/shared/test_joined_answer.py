"""An answer's head and the beginning of its body leave in one write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from shared.http.joined_answer import JoinedAnswer

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class _Connection(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed_after: int | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.written.append(b"".join(list_of_data))

    def close(self) -> None:
        self.closed_after = len(self.written)

    def is_closing(self) -> bool:
        return self.closed_after is not None


def _answer() -> tuple[_Connection, JoinedAnswer]:
    connection = _Connection()
    return connection, JoinedAnswer(connection, asyncio.get_running_loop())


async def test_head_and_body_leave_in_one_write() -> None:
    connection, answer = _answer()
    answer.write(HEAD)
    answer.write(b"{}")
    await asyncio.sleep(0)
    assert connection.written == [HEAD + b"{}"]


async def test_a_head_that_no_body_follows_leaves_at_the_end_of_the_turn() -> None:
    connection, answer = _answer()
    answer.write(HEAD)
    assert connection.written == []
    await asyncio.sleep(0)
    assert connection.written == [HEAD]
    answer.write(b"event: 1\n\n")
    assert connection.written == [HEAD, b"event: 1\n\n"]


async def test_what_follows_the_first_of_the_body_is_written_at_once() -> None:
    connection, answer = _answer()
    for part in (HEAD, b"1", b"2", b"3"):
        answer.write(part)
    assert connection.written == [HEAD + b"1", b"2", b"3"]


async def test_a_closed_answer_has_sent_its_head() -> None:
    connection, answer = _answer()
    answer.write(HEAD)
    answer.close()
    await asyncio.sleep(0)
    assert (connection.written, connection.closed_after, answer.is_closing()) == ([HEAD], 1, True)
