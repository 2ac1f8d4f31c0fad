"""PostgreSQL's timestamps: signed 64-bit microseconds since 2000-01-01 UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

MINUS_INFINITY, INFINITY = -(2**63), 2**63 - 1
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def rfc3339(microseconds: int) -> str:
    """RFC 3339 in UTC with all six decimals; PostgreSQL's name for what RFC 3339 cannot say."""
    if microseconds in (MINUS_INFINITY, INFINITY):
        return "infinity" if microseconds > 0 else "-infinity"
    try:
        time = _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return f"2000-01-01T00:00:00Z{microseconds:+}us"
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def microseconds(time: str) -> int:
    """The inverse of `rfc3339`, for times that it can say. Raises ValueError."""
    return (datetime.fromisoformat(time) - _EPOCH) // timedelta(microseconds=1)
