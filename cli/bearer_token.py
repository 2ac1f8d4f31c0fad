"""The bearer token of commands that call a service with AUTH=jwt.

It is never an argument: other users of the machine see those, and shells keep them.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from http import HTTPStatus
from pathlib import Path

import httpx

from cli.failure import BadArgument

VARIABLE = "ORDERS_TOKEN"
ADVICE = f"give a bearer token: {VARIABLE}, or --token-file"


class BearerToken(httpx.Auth):
    """Of the file, which is read again when the service refuses the token: imports outlast tokens. Without a file, of
    the variable `ORDERS_TOKEN`; where that is not set, requests carry none."""

    def __init__(self, file: Path | None) -> None:
        """Raises BadArgument."""
        self._file = file
        self._token = _from_environment() if file is None else _read(file)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        sent = self._token
        if not sent:
            yield request
            return
        request.headers["Authorization"] = f"Bearer {sent}"
        answer = yield request
        if answer.status_code == HTTPStatus.UNAUTHORIZED and self._file is not None:
            self._token = _read(self._file)
            if self._token != sent:
                request.headers["Authorization"] = f"Bearer {self._token}"
                yield request


def _from_environment() -> str:
    token = os.environ.get(VARIABLE, "").strip()
    return _checked(token, VARIABLE) if token else ""


def _read(file: Path) -> str:
    try:
        token = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadArgument(f"--token-file {file}: {error}") from error
    return _checked(token, f"--token-file {file}")


def _checked(token: str, source: str) -> str:
    """One that fits into a header. Messages do not show it: it may be a secret in the wrong form."""
    if not token.isascii() or not token.isprintable() or token.split() != [token]:
        raise BadArgument(f"{source} does not hold one token")
    return token
