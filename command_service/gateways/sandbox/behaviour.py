"""How the sandbox behaves: by the amount of a payment, and by the pieces of a parcel."""

from __future__ import annotations

from enum import StrEnum


class Behaviour(StrEnum):
    """The value says what happens, in the table of docs/processes.md."""

    DECLINED = "the authorisation is declined"
    CAPTURE_DECLINED = "each capture is declined"
    IN_REVIEW = "the payment is authorised, and a fraud suspected"
    OUT_OF_STOCK = "no piece is there"
    PARTIAL = "half of the pieces are packed, the others at the next request"
    LOST = "the parcel is lost, and what replaces it as well"
    LOST_ONCE = "the parcel is lost; what replaces it arrives"
    ON_THE_WAY = "the parcel is on the way the first two times it is asked for"
    # Of each effect, at its first request. A repetition is answered as usual.
    DELAYED = "202, carried out a second later, then a callback"
    FAILED_AFTER = "500, after it was carried out"
    FAILED_BEFORE = "500, and nothing was done"
    NO_ANSWER = "carried out, and no answer"
    UNAVAILABLE = "503, and nothing was done"
    DUPLICATED = "carried out and answered, then three callbacks"


# By the last four digits of the authorised amount, in minor units.
AMOUNTS = {
    9001: Behaviour.DECLINED,
    9002: Behaviour.CAPTURE_DECLINED,
    9003: Behaviour.IN_REVIEW,
    9004: Behaviour.DELAYED,
    9005: Behaviour.FAILED_AFTER,
    9006: Behaviour.NO_ANSWER,
    9007: Behaviour.UNAVAILABLE,
    9008: Behaviour.FAILED_BEFORE,
    9009: Behaviour.DUPLICATED,
}
# By the pieces of a line.
PIECES = {
    901: Behaviour.OUT_OF_STOCK,
    902: Behaviour.PARTIAL,
    903: Behaviour.LOST,
    904: Behaviour.DELAYED,
    905: Behaviour.FAILED_AFTER,
    906: Behaviour.NO_ANSWER,
    907: Behaviour.UNAVAILABLE,
    908: Behaviour.FAILED_BEFORE,
    909: Behaviour.DUPLICATED,
    910: Behaviour.LOST_ONCE,
    911: Behaviour.ON_THE_WAY,
}
