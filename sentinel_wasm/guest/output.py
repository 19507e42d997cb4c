"""What a module prints or logs, as lines of the agent's log, at most so many a second."""

from __future__ import annotations

import struct
import time

import structlog

from sentinel_wasm import _hostcalls

LINES_A_SECOND = 100

_log = structlog.stdlib.get_logger("guest")
_LEVELS = ("debug", "debug", "info", "warning", "error")  # sentinel.log: trace debug info warn error
_TRACE_HEAD = struct.Struct("<I5d")

Line = tuple[str, str, str]  # level, source, text


def lines(records: list[tuple[int, bytes]]) -> list[Line]:
    """The records of one call as lines; what is written to stdout in pieces becomes whole lines again."""
    streams = {_hostcalls.STDOUT: b"", _hostcalls.STDERR: b""}
    found: list[Line] = []
    for channel, data in records:
        if channel in streams:
            streams[channel] += data
        elif channel == _hostcalls.TRACE:
            found.append(("debug", "trace", _trace(data)))
        else:
            found.append((_LEVELS[channel - _hostcalls.LOG], "log", data.decode("utf-8", "replace")))
    for channel, level, source in (
        (_hostcalls.STDOUT, "info", "stdout"),
        (_hostcalls.STDERR, "warning", "stderr"),
    ):
        text = streams[channel].decode("utf-8", "replace")
        found += [(level, source, line) for line in text.splitlines() if line.strip()]
    return found


def _trace(data: bytes) -> str:
    """AssemblyScript's trace(message, n, a0 … a4)."""
    if len(data) < _TRACE_HEAD.size:
        return "(cut)"
    count, *numbers = _TRACE_HEAD.unpack_from(data)
    text = data[_TRACE_HEAD.size :].decode("utf-16-le", "replace")
    return " ".join([text, *(f"{number:g}" for number in numbers[:count])])


class GuestOutput:
    """Logs guests' lines under a rate; what is left out is counted and said once the rate allows."""

    def __init__(self) -> None:
        self._second = 0
        self._left = LINES_A_SECOND
        self._lines_dropped = 0
        self._bytes_dropped = 0

    def write(self, records: list[tuple[int, bytes]], bytes_dropped: int, correlation_id: str) -> None:
        self._bytes_dropped += bytes_dropped
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._left = second, LINES_A_SECOND
        for level, source, text in lines(records):
            if self._left == 0:
                self._lines_dropped += 1
                continue
            self._left -= 1
            getattr(_log, level)(text, source=source, correlation_id=correlation_id)
        if self._left and (self._lines_dropped or self._bytes_dropped):
            _log.warning("guest output left out", lines=self._lines_dropped, bytes=self._bytes_dropped)
            self._lines_dropped = self._bytes_dropped = 0
