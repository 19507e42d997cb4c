"""The memory that large frames take: kept for the next one, given back when none comes any more."""

from __future__ import annotations

import asyncio
import ctypes

from sentinel_wasm._fastpath import FrameBuffer

LARGE_BYTES = 65_536
CALM_S = 1.0

# mallopt(3), of glibc; another C library has neither function and needs neither.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 32 * 1024 * 1024  # the most that M_MMAP_THRESHOLD takes


class Heap:
    """Large blocks come from the heap, and so from memory that this process already has.

    By itself, glibc maps each of the five that a body chunk of 1 MiB needs and gives it back: to wipe their
    1,500 pages takes the kernel longer than all else. Once it has learnt to keep them, they stay for good.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._last = 0.0
        self._buffers: set[FrameBuffer] = set()
        self._timer: asyncio.TimerHandle | None = None
        libc = ctypes.CDLL(None)
        self._trim = getattr(libc, "malloc_trim", None)
        if self._trim is not None:
            libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
            libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)

    def large_frame(self, buffer: FrameBuffer) -> None:
        """A frame of over LARGE_BYTES has come through this buffer."""
        self._last = self._loop.time()
        self._buffers.add(buffer)
        if self._timer is None:
            self._timer = self._loop.call_later(CALM_S, self._look)

    def _look(self) -> None:
        left = self._last + CALM_S - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        self._timer = None
        for buffer in self._buffers:
            buffer.shrink()
        self._buffers.clear()
        if self._trim is not None:
            self._trim(0)
