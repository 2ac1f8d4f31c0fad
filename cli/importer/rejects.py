"""The CSV of invoices that are not in the log."""

from __future__ import annotations

import csv
from io import TextIOWrapper
from pathlib import Path

from cli.failure import BadArgument
from cli.importer.online_retail import Reject
from shared.files import replacing

HEADER = ["invoice", "lines", "reason", "explanation", "raw"]


def write_rejects(path: Path, rejects: list[Reject]) -> None:
    """Replace the file atomically. Raises BadArgument."""
    try:
        with replacing(path) as binary:
            file = TextIOWrapper(binary, "utf-8", newline="")
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            for reject in rejects:
                lines = " ".join(map(str, reject.lines))
                writer.writerow([reject.invoice, lines, reject.reason, reject.explanation, reject.raw])
            file.detach()  # flushes it
    except OSError as error:
        raise BadArgument(f"cannot write {path}: {error.strerror}") from error
