"""The pieces in which Redis stores a large document, so that a change of a few fields is not written with all others.

A document is the field `document` and, while that has `PIECE` bytes or more, the fields `document.1`, `document.2` …:
up to one that is shorter, empty or not there. The Lua scripts that read documents know this, too.
"""

from __future__ import annotations

from collections.abc import Mapping

PIECE = 16 * 1024  # characters of a piece, so as many bytes or more


def pieces_of(document: str) -> dict[str, str]:
    """By field. After the last piece comes an empty one, because the document may have been longer before."""
    if len(document) < PIECE and document.isascii():
        return {"document": document}
    starts = range(0, len(document) + PIECE, PIECE)
    return {f"document.{start // PIECE}" if start else "document": document[start : start + PIECE] for start in starts}


def changed_fields(fields: Mapping[str, str], stored: str | None) -> Mapping[str, str]:
    """The fields, with those pieces of the document in which it differs from the stored one; None: it is not known."""
    document = fields["document"]
    if len(document) < PIECE // 4:  # a character has up to four bytes
        return fields
    before = {} if stored is None else pieces_of(stored)
    changed = {name: piece for name, piece in pieces_of(document).items() if before.get(name) != piece}
    return {name: text for name, text in fields.items() if name != "document"} | changed


def joined(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields of a document's hash, with its pieces as one."""
    whole = {name: text for name, text in fields.items() if not name.startswith("document.")}
    if "document" in fields:
        pieces = [piece := fields["document"]]
        while len(piece.encode()) >= PIECE and (piece := fields.get(f"document.{len(pieces)}", "")):
            pieces.append(piece)
        whole["document"] = "".join(pieces)
    return whole
