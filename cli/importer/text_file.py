"""The lines of a text file: plain, gzipped or zipped, in the encodings and with the line ends of spreadsheets."""

from __future__ import annotations

import codecs
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import IO

MAX_LINE = 64 * 1024  # characters; the longest row of this data has about 150
# Characters, unpacked: a packed file may hold a thousand times its own size. Both years of this data are half of it.
MAX_FILE = 256 * 1024**2

_BUFFER = 1 << 16  # bytes; with gzip's own 8,192, decompression takes a quarter of the time
_GZIP, _ZIP, _EMPTY_ZIP = b"\x1f\x8b", b"PK\x03\x04", b"PK\x05\x06"
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_UNDECODABLE = re.compile("[\udc80-\udcff]")  # bytes that are not of the encoding, as `surrogateescape` keeps them


class NotReadable(Exception):
    """The file as a whole cannot be read; the message says why."""


class TextFile:
    """A file that may be read several times. UTF-8 unless its first bytes say otherwise, or `encoding` is set."""

    def __init__(self, path: Path) -> None:
        """Raises NotReadable, and OSError when the file cannot be opened."""
        self._path = path
        self.encoding = self._marked_encoding()
        self._line_end = self._first_line_end()
        # Of the lines read so far:
        self.has_undecodable = False
        self.has_beyond_ascii = False  # and decodable

    def lines(self) -> Iterator[str]:
        """Each without its end. Undecodable bytes are lone surrogates; see `is_decoded`. Raises NotReadable."""
        self.has_undecodable = self.has_beyond_ascii = False
        rest, number = "", 0
        for chunk in self._chunks():
            text = rest + chunk
            *lines, rest = text.split(self._line_end)
            if not text.isascii():
                self._note_beyond_ascii(lines)
            yield from lines
            number += len(lines)
            if len(rest) > MAX_LINE:
                raise NotReadable(f"line {number + 1} is longer than {MAX_LINE:,} characters")
        self._note_beyond_ascii([rest])
        yield rest

    def _note_beyond_ascii(self, lines: Iterable[str]) -> None:
        decoded = {is_decoded(line) for line in lines if not line.isascii()}
        self.has_beyond_ascii |= True in decoded
        self.has_undecodable |= False in decoded

    def _marked_encoding(self) -> str:
        with _unpacked(self._path) as content:
            start = content.read(3)
        return next((name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")

    def _first_line_end(self) -> str:
        """A carriage return that stands alone further inside a file is no line end."""
        start = next(self._chunks(), "")
        found = re.search("\r?\n|\r", start)
        return "\r" if found and found[0] == "\r" else "\n"

    def _chunks(self) -> Iterator[str]:
        left = MAX_FILE
        with _unpacked(self._path) as content, TextIOWrapper(content, self.encoding, "surrogateescape", "") as text:
            while chunk := text.read(MAX_LINE):
                left -= len(chunk)
                if left < 0:
                    raise NotReadable(f"it is longer than {MAX_FILE:,} characters; split it into smaller files")
                yield chunk


def is_decoded(line: str) -> bool:
    """Whether every byte of the line was text in the file's encoding."""
    return line.isascii() or _UNDECODABLE.search(line) is None


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        magic = file.read(4)
    try:
        if magic.startswith(_GZIP):
            with gzip.open(path) as unpacked, BufferedReader(unpacked, _BUFFER) as buffered:
                yield buffered
        elif magic in (_ZIP, _EMPTY_ZIP):
            with zipfile.ZipFile(path) as archive, archive.open(_only_table(archive)) as member:
                yield member
        else:
            with path.open("rb", _BUFFER) as plain:
                yield plain
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise NotReadable(f"the packed file is damaged: {error}") from error
    except UnicodeError as error:
        raise NotReadable(f"the text is damaged: {error}") from error


def _only_table(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
    if any(one.filename.startswith("xl/") or one.filename.endswith((".xlsx", ".xls")) for one in members):
        raise NotReadable("it is an Excel workbook: save each sheet as CSV and import that")
    if len(members) != 1:
        names = ", ".join(one.filename for one in members[:5]) or "nothing"
        raise NotReadable(f"the archive should hold one CSV file, but it holds {names}")
    if members[0].flag_bits & 1:
        raise NotReadable("the archive is encrypted")
    return members[0]
