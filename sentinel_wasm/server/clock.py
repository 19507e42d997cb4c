"""When events arrived, where nobody looked: the kernel does not say how long bytes waited to be read."""

from __future__ import annotations

import asyncio
import time

# Each beat wakes a sleeping process, which costs it 0.1 ms on slow machines: 35 ms make 0.3% of a core.
BEAT_MS = 35
_GAP_NS = 45_000_000


class LoopClock:
    """The time of the event loop's turns, and gaps between them while v1 proxies are connected.

    An event may have waited for as long as the loop did not run: behind slow guests, while the process was
    stopped, or because the machine had no time for it. Over v2 an answer that is late for that is no danger.
    Over v1 it would be taken for the next request's (agent-protocol.md, section 2), so a timer beats while
    there are v1 connections, and what is read first after a gap counts as having arrived when it began.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: set[object] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._turn_ns = 0
        self._turn_before_ns = 0
        self._beat_ns = 0
        self._gap_began_ns = 0

    def turn_ns(self) -> int:
        """When this turn of the loop began, of time.monotonic_ns: what it reads was there by then."""
        turn_ns = round(self._loop.time() * 1000) * 1_000_000
        if turn_ns != self._turn_ns:
            self._turn_before_ns, self._turn_ns = self._turn_ns, turn_ns
        return turn_ns

    def watch(self, connection: object) -> None:
        """The connection may speak v1."""
        self._watched.add(connection)
        if self._timer is None:
            self._beat_ns = time.monotonic_ns()
            self._beat()

    def unwatch(self, connection: object) -> None:
        """It speaks v2, or is closed."""
        self._watched.discard(connection)

    def v1_arrival_ns(self) -> int:
        """When an event that is read in this turn, from a watched connection, may have arrived."""
        looked_ns = max(self._gap_began_ns or self._beat_ns, self._turn_before_ns)
        return looked_ns if self._turn_ns - looked_ns > _GAP_NS else self._turn_ns

    def _beat(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self._beat_ns > _GAP_NS:
            # What came in meanwhile is read after this, in one turn; the second callback runs behind it.
            self._gap_began_ns = self._beat_ns
            self._loop.call_soon(self._loop.call_soon, self._end_gap)
        self._beat_ns = now_ns
        self._timer = self._loop.call_later(BEAT_MS / 1000, self._beat) if self._watched else None

    def _end_gap(self) -> None:
        self._gap_began_ns = 0
