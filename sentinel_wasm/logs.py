"""The agent's log on stderr: readable text, or one JSON object a line."""

from __future__ import annotations

import asyncio
import atexit
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TextIO, cast

import orjson
import structlog
from structlog.types import EventDict, Processor

from sentinel_wasm.settings import LogFormat
from sentinel_wasm.stderr import Writer

BURST = 10
_MOST_CHARACTERS = 8192  # of a text in a line; what one call of a guest may print
_MOST_ITEMS = 50
_FLUSH_S = 1.0

_log = structlog.stdlib.get_logger("log")


class _State:
    """Of the one log that a process has."""

    is_debug = False
    writer: Writer | None = None
    left_out = 0  # lines of Throttles, and of guests


def configure(log_format: LogFormat = "auto", **fields: object) -> None:
    """Log to stderr from now on; `fields` are in every line. `auto` is text on a terminal, else JSON."""
    terminal = sys.stderr.isatty()
    is_text = terminal if log_format == "auto" else log_format == "text"
    # Not rich's tracebacks where rich is at hand: they show variables, which hold requests.
    plain = structlog.dev.plain_traceback
    text = structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=plain)
    json = structlog.processors.JSONRenderer(lambda event, **_: orjson.dumps(event, default=repr).decode())
    processors: list[Processor] = [
        _asked_for,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda _, __, event: {**event, **fields},
        structlog.processors.format_exc_info,
        bounded,
        *([printable, text] if is_text else [json]),
    ]

    def dropped_line(lines: int) -> bytes:
        event: Any = {"event": "log lines dropped: stderr was not read in time", "lines": lines}
        for processor in processors:
            event = processor(None, "warning", event)
        return f"{event}\n".encode()

    _State.writer = writer = Writer(sys.stderr.fileno(), dropped_line)
    atexit.register(writer.finish, _FLUSH_S)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger("debug"),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, writer)),
        cache_logger_on_first_use=True,
    )


def _asked_for(_: object, level: str, event: EventDict) -> EventDict:
    if level == "debug" and not _State.is_debug:
        raise structlog.DropEvent
    return event


def bounded(_: object, __: str, event: EventDict) -> EventDict:
    """A line has an end, whatever modules and clients say, and is valid UTF-8."""
    return {name: _bounded(value) for name, value in event.items()}


def _bounded(value: object) -> object:
    if type(value) is str:
        if len(value) > _MOST_CHARACTERS:
            value = f"{value[:_MOST_CHARACTERS]} …"
        return value if value.isascii() else value.encode(errors="backslashreplace").decode()
    if type(value) is list:
        rest = ["…"] if len(value) > _MOST_ITEMS else []
        return [*map(_bounded, value[:_MOST_ITEMS]), *rest]
    return value


def printable(_: object, __: str, event: EventDict) -> EventDict:
    """What modules and clients say must not reach a terminal as commands to it; JSON escapes by itself."""
    return {
        name: escaped(value, "\n" if name == "exception" else "") if type(value) is str else value
        for name, value in event.items()
    }


def escaped(text: str, kept: str = "") -> str:
    """What a terminal would obey is shown as it is written in Python."""
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)


def is_debug() -> bool:
    return _State.is_debug


def set_debug(on: bool) -> None:
    """Whether debug lines are logged too."""
    if on != _State.is_debug:
        _State.is_debug = on
        _log.info(f"debug logging is {'on' if on else 'off'}")


def leave_out(lines: int) -> None:
    """Count lines that are kept from the log, because there are too many of them."""
    _State.left_out += lines


def dropped_lines() -> dict[str, int]:
    """How many lines the log does not have, for their rate or because stderr took no more."""
    return {"rate": _State.left_out, "stderr": _State.writer.dropped if _State.writer else 0}


class InASecond:
    """When called, has `say` called in a second, once; where no event loop runs, not at all."""

    def __init__(self, say: Callable[[], None]) -> None:
        self._say = say
        self._loop: asyncio.AbstractEventLoop | None = None  # which will

    def __call__(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(1, self._do)

    def _do(self) -> None:
        self._loop = None
        self._say()


class Throttle:
    """For lines that may come with every event: of each sort ten at once, then one a second.

    That one is the last of its second, and says how many were left out before it (`left_out`).
    """

    def __init__(self) -> None:
        self._sorts: dict[str, _Sort] = {}

    def say(self, sort: str, log: Callable[..., Any], event: str, **fields: Any) -> None:
        """Log it: now, in a second, or not at all."""
        self._sorts.setdefault(sort, _Sort()).say(partial(log, event, **fields))


class _Sort:
    def __init__(self) -> None:
        self._room = float(BURST)
        self._at = time.monotonic()
        self._left_out = 0
        self._last: Callable[..., Any] | None = None
        self._say_later = InASecond(self._say_last)

    def say(self, line: Callable[..., Any]) -> None:
        self._left_out += self._last is not None
        self._last = line
        now = time.monotonic()
        self._room = min(self._room + now - self._at, BURST)
        self._at = now
        if self._room >= 1:
            self._say_last()
        else:
            self._say_later()

    def _say_last(self) -> None:
        line, self._last = self._last, None
        if line is None:
            return
        self._room -= 1
        left_out, self._left_out = self._left_out, 0
        leave_out(left_out)
        line(**({"left_out": left_out} if left_out else {}))
