"""The agent's log on stderr: readable on a terminal, else one JSON object a line."""

from __future__ import annotations

import logging
import sys

import orjson
import structlog


def configure(*, level: int = logging.INFO) -> None:
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
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
