"""When events arrived, where nobody looked: the kernel does not say how long bytes waited to be read."""

from __future__ import annotations

import asyncio
import time

from sentinel_wasm._stream import LOOP_GAP_NS, Turns

# Each beat wakes a sleeping process, which costs it 0.1 ms on slow machines: 35 ms make 0.3% of a core.
BEAT_MS = 35


class LoopClock(Turns):
    """The event loop's turns; while v1 proxies are connected, a timer beats to see gaps between them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._loop = loop
        self._watched: set[object] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, connection: object) -> None:
        """The connection may speak v1."""
        self._watched.add(connection)
        if self._timer is None:
            self.beat_ns = time.monotonic_ns()
            self._beat()

    def unwatch(self, connection: object) -> None:
        """It speaks v2, or is closed."""
        self._watched.discard(connection)

    def _beat(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self.beat_ns > LOOP_GAP_NS:
            # What came in meanwhile is read after this, in one turn; the second callback runs behind it.
            self.gap_began_ns = self.beat_ns
            self._loop.call_soon(self._loop.call_soon, self._end_gap)
        self.beat_ns = now_ns
        self._timer = self._loop.call_later(BEAT_MS / 1000, self._beat) if self._watched else None

    def _end_gap(self) -> None:
        self.gap_began_ns = 0
