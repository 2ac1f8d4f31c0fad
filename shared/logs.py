"""Structured logs: one JSON object a line on standard output. Warnings and errors that come in floods are counted."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from contextvars import copy_context
from io import TextIOBase
from typing import TextIO, cast

import msgspec
import structlog

from shared.log_floods import FloodLimit


def _to_json(event: object, **_: object) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


class _Output(TextIOBase):
    """Standard output. A line that cannot be written is lost: a disk that is full of logs must not stop a service."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            sys.stdout.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stdout.flush()


_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


_LIMITED = {"warning", "error", "critical", "exception"}
_FLOOD = "lines not logged"


def _report_flood(event: str, lines: int) -> None:
    get_logger().warning(_FLOOD, of=event, lines=lines)


def configure_logs(process: str, level: str) -> None:
    """Once per process, before anything is logged. Libraries' own records take the same form."""
    render: list[structlog.typing.Processor] = [
        # Without the frames' variables: those hold addresses with passwords and customers' data.
        structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(serializer=_to_json),
    ]
    structlog.contextvars.bind_contextvars(process=process)
    floods = FloodLimit(_report_flood, copy_context())

    def limit(_logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if method in _LIMITED and event["event"] != _FLOOD and not floods.admits(event["event"]):
            raise structlog.DropEvent
        return event

    structlog.configure(
        processors=[limit, *_SHARED, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Output())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_Output())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *render,
            ],
        )
    )
    # By its text without arguments: those of a client's garbage differ from line to line.
    handler.addFilter(lambda record: record.levelno < logging.WARNING or floods.admits(str(record.msg)))
    logging.basicConfig(
        handlers=[handler],
        level=max(logging.getLevelName(level), logging.INFO),
        force=True,
    )


def get_logger() -> structlog.typing.FilteringBoundLogger:
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger
