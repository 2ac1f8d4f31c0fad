"""The public keys that verify the tokens of callers: a JSON Web Key Set (RFC 7517) in a file or at a URL.

The set is read again while the service runs, so keys rotate without a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import httpx
import jwt
import msgspec

from shared.aio import cancel
from shared.errors import Unavailable
from shared.logs import get_logger

REFRESH_SECONDS = 60.0  # a key that was withdrawn is accepted no longer than that while the source answers
UNKNOWN_KEY_SECONDS = 5.0  # between reads for the sake of keys that are not in the set
KEEP_SECONDS = 24 * 3_600.0  # how long a set counts after the source last answered
READ_SECONDS = 5.0
MAX_BYTES = 256 * 1024

# Each verifies with a public key: with a shared secret, a service that verifies tokens could sign them as well.
_ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

_log = get_logger()


@dataclass
class KeysUnavailable(Unavailable):
    retry_after = 5.0
    code = "keys-unavailable"
    title = "The keys that verify tokens cannot be read"

    @property
    def detail(self) -> str:
        return "The service cannot read the keys that verify tokens. Nothing was done; try again."


class KeySet:
    def __init__(self, source: str) -> None:
        """`source` is a URL (http or https) or the path of a file."""
        self._source = source
        self._content = b""
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._read_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._generation = 0

    def generation(self) -> int:
        """Another number once the set has changed. Starts to read it again, in the background, when that is due."""
        if monotonic() - self._tried_at > REFRESH_SECONDS:
            self._start_reading()
        return self._generation

    async def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key with this id; for a token that names none, the only key. Raises `KeysUnavailable`."""
        key = self._find(key_id)
        if key is None and monotonic() - self._tried_at > UNKNOWN_KEY_SECONDS:
            self._start_reading()
        if key is None and self._reading is not None:
            await asyncio.wait([self._reading])
            key = self._find(key_id)
        if monotonic() - self._read_at > KEEP_SECONDS:
            raise KeysUnavailable
        return key

    async def close(self) -> None:
        await cancel(self._reading)

    def _find(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _start_reading(self) -> None:
        if self._reading is None or self._reading.done():
            self._tried_at = monotonic()
            self._reading = asyncio.create_task(self._read(), name="read-keys")

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                content = await _content_of(self._source)
            keys = _parse(content)
        except (OSError, TimeoutError, httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            _log.error("keys not read", source=self._source, error=repr(error), known=len(self._keys))
            return
        self._read_at = monotonic()
        if content != self._content:
            self._content, self._keys = content, keys
            self._generation += 1
            _log.info("keys read", source=self._source, keys=len(keys))


async def _content_of(source: str) -> bytes:
    """Raises ValueError where it is longer than `MAX_BYTES`."""
    if not source.startswith(("http://", "https://")):
        content = await asyncio.to_thread(_read_file, Path(source))
    else:
        content = b""
        async with (
            httpx.AsyncClient(timeout=READ_SECONDS) as client,  # follows no redirects
            client.stream("GET", source) as response,
        ):
            response.raise_for_status()
            async for part in response.aiter_bytes():
                content += part
                if len(content) > MAX_BYTES:
                    break
    if len(content) > MAX_BYTES:
        raise ValueError(f"the key set has more than {MAX_BYTES} bytes")
    return content


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _parse(content: bytes) -> dict[str | None, jwt.PyJWK]:
    """The keys for signatures by id. Raises ValueError where there is none."""
    document = msgspec.json.decode(content)
    listed = document.get("keys") if isinstance(document, dict) else None
    keys: dict[str | None, jwt.PyJWK] = {}
    for one in listed if isinstance(listed, list) else ():
        # A set may hold keys of kinds that this program does not know, beside those that it does.
        with suppress(jwt.PyJWTError, AttributeError):
            key = jwt.PyJWK.from_dict(one)
            if key.algorithm_name in _ALGORITHMS and key.public_key_use in (None, "sig"):
                keys[key.key_id] = key
    if not keys:
        raise ValueError("the key set has no public key for signatures")
    return keys
