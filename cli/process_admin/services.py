"""The two services, as commands about processes ask them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from cli.bearer_token import ADVICE, BearerToken
from cli.failure import BadArgument, CommandFailed
from cli.stack.addresses import find_command_url, find_query_url

SECONDS = 30.0


class Service:
    """A service at its address. Methods return the JSON of the answer, and raise `CommandFailed`."""

    def __init__(self, url: str, token: BearerToken) -> None:
        self._url = url
        self._token = token

    @staticmethod
    def quote(name: str) -> str:
        return quote(name, safe="")

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        given = {name: value for name, value in (parameters or {}).items() if value is not None}
        return self._answer(self._ask("GET", path, params=given))

    def find(self, path: str, parameters: Mapping[str, Any]) -> Any | None:
        """None where it answers 404."""
        answer = self._ask("GET", path, params=parameters)
        return None if answer.status_code == HTTPStatus.NOT_FOUND else self._answer(answer)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._answer(self._ask("POST", path, json=body))

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """Of a history; none where there is nothing of that id."""
        after: int | None = 0
        while after is not None:
            if (page := self.find(path, {"after_version": after})) is None:
                return
            yield from page["events"]
            after = page["next_after_version"]

    def _ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        try:
            return httpx.request(method, self._url + path, auth=self._token, timeout=SECONDS, **given)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CommandFailed(f"{self._url} did not answer: {error!r}") from error

    def _answer(self, answer: httpx.Response) -> Any:
        try:
            answered = answer.json()
        except ValueError as error:
            raise CommandFailed(f"{self._url} answered {answer.status_code} without JSON") from error
        if answer.is_success:
            return answered
        advice = f"; {ADVICE}" if answer.status_code == HTTPStatus.UNAUTHORIZED else ""
        raise CommandFailed(f"{answered.get('code')}: {answered.get('detail')}{advice}")


def queries(url: str | None, token_file: Path | None, data_dir: Path | None) -> Service:
    return Service(find_query_url(data_dir, url), BearerToken(token_file))


def commands(url: str | None, token_file: Path | None, data_dir: Path | None) -> Service:
    return Service(find_command_url(data_dir, url), BearerToken(token_file))


def parse_data(text: str) -> dict[str, Any]:
    """Raises BadArgument."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BadArgument(f"--data is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise BadArgument('--data should be a JSON object, such as {"reason": "expired"}')
    return data
