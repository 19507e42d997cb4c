"""What a module prints or logs, as lines of the agent's log, at most so much a second."""

from __future__ import annotations

import struct
import time

import structlog

from sentinel_wasm import _hostcalls, logs

LINES_A_SECOND = 100
BYTES_A_SECOND = 65_536

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
    """Logs a module's lines under a rate; what is left out is counted, and said within a second or two.

    Its text has a field of its own, so that it cannot pass for a line of the agent's.
    """

    def __init__(self, module: str = "") -> None:
        """`module`: its digest."""
        self._log = _log.bind(module=module)
        self._second = 0
        self._lines_left = self._bytes_left = 0
        self._lines_dropped = self._bytes_dropped = 0
        self._say_later = logs.InASecond(self._say_in_time)  # where nothing more comes

    def write(self, records: list[tuple[int, bytes]], bytes_dropped: int, correlation_id: str) -> None:
        self._bytes_dropped += bytes_dropped
        self._look_at_time()
        for level, source, text in lines(records):
            if level == "debug" and not logs.is_debug():
                continue
            if self._lines_left == 0 or self._bytes_left < len(text):
                self._lines_left = 0
                self._lines_dropped += 1
                logs.leave_out(1)
                continue
            self._lines_left -= 1
            self._bytes_left -= len(text)
            log = getattr(self._log, level)
            log("guest output", text=text, source=source, correlation_id=correlation_id)
        if self._lines_dropped or self._bytes_dropped:
            if self._lines_left:
                self._say_dropped()
            else:
                self._say_later()

    def _look_at_time(self) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines_left, self._bytes_left = second, LINES_A_SECOND, BYTES_A_SECOND

    def _say_dropped(self) -> None:
        self._lines_left = max(self._lines_left - 1, 0)
        self._log.warning("guest output left out", lines=self._lines_dropped, bytes=self._bytes_dropped)
        self._lines_dropped = self._bytes_dropped = 0

    def _say_in_time(self) -> None:
        self._look_at_time()
        if self._lines_dropped or self._bytes_dropped:
            self._say_dropped()
