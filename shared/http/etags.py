"""Entity tags of documents: `"<version>-<document version>-<log id>"`.

A version alone would not do: a log that was restored has other events under the same version, and another release may
make another document of the same events.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from uuid import UUID

# Proxies that compress make entity tags weak. Not longer than a version in the log may be.
IF_MATCH_PATTERN = r'(?:W/)?"(0|[1-9][0-9]{0,9})(?:-[1-9][0-9]{0,9}-([0-9a-f]{32}))?"'
_IF_MATCH = re.compile(IF_MATCH_PATTERN)


class ExpectedVersion(NamedTuple):
    """The version in an If-Match. `log_id` is None for a plain version, which is one of whatever log there is."""

    version: int
    log_id: UUID | None


def etag_of(version: int | str, document_version: int, token: str) -> str:
    """The tag of a document at `version`, which an answer with that consistency token shows."""
    return f'"{version}-{document_version}-{token.partition("-")[0]}"'


def parse_if_match(if_match: str) -> ExpectedVersion | None:
    """The entity tag of a document, or a plain version in double quotes; None where it is neither."""
    if (match := _IF_MATCH.fullmatch(if_match)) is None:
        return None
    version, log_id = match.groups()
    return ExpectedVersion(int(version), None if log_id is None else UUID(log_id))
