"""Log lines on their way to stderr: who logs never waits for who reads."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

MOST_BYTES = 1024 * 1024
_SAY_S = 1.0


class Writer:
    """A thread writes the lines, and computes nothing: a pipe that is full would hold the event loop.

    Up to 1 MiB of lines waits; what comes then is dropped, and a line says so as soon as there is room again.
    Lines of up to 4 KiB arrive whole, whatever other processes write to the same pipe.
    """

    def __init__(self, descriptor: int, dropped_line: Callable[[int], bytes]) -> None:
        """`dropped_line` makes the line that says how many were dropped. One thread logs."""
        self._descriptor = descriptor
        self._dropped_line = dropped_line
        self._queue: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        # Each is changed by one thread only: the first two by who logs.
        self._queued_bytes = self._turned_away = 0
        self._written_bytes = self._refused = self._said = 0
        self._say_at = 0.0
        threading.Thread(target=self._run, name="log", daemon=True).start()

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return self._turned_away + self._refused

    def write(self, text: str) -> None:
        line = text.encode(errors="backslashreplace")
        if self._queued_bytes - self._written_bytes + len(line) > MOST_BYTES:
            self._turned_away += 1
            return
        self._queued_bytes += len(line)
        self._queue.put(line)

    def flush(self) -> None:
        """What files have; `finish` waits."""

    def finish(self, patience_s: float) -> None:
        """Wait until what was written so far is with the reader, but only so long."""
        done = threading.Event()
        self._queue.put(done)
        done.wait(patience_s)

    def _run(self) -> None:
        ahead: bytes | threading.Event | None = None
        while True:
            item = ahead or self._queue.get()
            ahead = None
            if isinstance(item, threading.Event):
                self._say_dropped()
                item.set()
                continue
            while not self._queue.empty():
                ahead = self._queue.get()
                if isinstance(ahead, threading.Event) or len(item) + len(ahead) > select.PIPE_BUF:
                    break
                item, ahead = item + ahead, None
            self._send(item)
            self._written_bytes += len(item)
            if ahead is None or time.monotonic() > self._say_at:
                self._say_dropped()

    def _say_dropped(self) -> None:
        unsaid = self.dropped - self._said
        if unsaid:
            self._said += unsaid
            self._say_at = time.monotonic() + _SAY_S
            self._send(self._dropped_line(unsaid))

    def _send(self, lines: bytes) -> None:
        left = memoryview(lines)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                # Another process that has the same pipe wants it so.
                select.select([], [self._descriptor], [])
            except OSError:
                # The reader is gone, or the disk is full.
                self._refused += lines.count(b"\n")
                return
