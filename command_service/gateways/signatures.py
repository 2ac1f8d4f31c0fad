"""Signatures of callbacks: Standard Webhooks, HMAC-SHA256 over id, time and body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from shared.errors import Forbidden

HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
WINDOW_SECONDS = 300  # between `webhook-timestamp` and our clock; the package's


@dataclass
class CallbackRefused(Forbidden):
    reason: str
    code = "callback-refused"
    title = "The callback is not one that the gateway signed just now"

    @property
    def detail(self) -> str:
        return f"The callback is not accepted: {self.reason}."


class Signatures:
    """Signs with the first secret, accepts those of all: so secrets are rotated without a pause."""

    def __init__(self, secrets: SecretStr | None) -> None:
        """`secrets` are separated by commas; None: every callback is refused."""
        given = "" if secrets is None else secrets.get_secret_value()
        self._webhooks = [Webhook(secret.strip()) for secret in given.split(",") if secret.strip()]

    def sign(self, callback_id: str, at: datetime, content: bytes) -> dict[str, str]:
        """The headers. `at` is in UTC."""
        signature = self._webhooks[0].sign(callback_id, at, content.decode())
        return dict(zip(HEADERS, (callback_id, str(int(at.timestamp())), signature), strict=True))

    def verify(self, headers: Mapping[str, str], content: bytes) -> None:
        """Raises `CallbackRefused`."""
        reason = "no secret is set"
        for webhook in self._webhooks:
            try:
                webhook.verify(content, dict(headers), json_parse=False)
            except WebhookVerificationError as error:
                reason = str(error)
            except ValueError:  # what is no signature, or no text
                reason = "it cannot be read"
            else:
                return
        raise CallbackRefused(reason)
