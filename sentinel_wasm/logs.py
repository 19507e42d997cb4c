"""The agent's log on stderr: readable on a terminal, else one JSON object a line."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO, cast

import orjson
import structlog


class _Lossy:
    """A stream whose reader may go away: answering the proxy matters more than the log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def printable(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """What modules and clients say must not reach a terminal as commands to it; JSON escapes by itself."""
    return {
        name: "".join(c if c.isprintable() else repr(c)[1:-1] for c in value) if type(value) is str else value
        for name, value in event.items()
    }


def configure(**fields: object) -> None:
    """Log at info and above to stderr; `fields` are in every line."""
    terminal = sys.stderr.isatty()
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer()
        if terminal
        else structlog.processors.JSONRenderer(lambda event, **_: orjson.dumps(event, default=repr).decode())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            lambda _, __, event: {**event, **fields},
            printable if terminal else structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Lossy(sys.stderr))),
        cache_logger_on_first_use=True,
    )
