"""When a module that was slow has been quick for long enough to run on the event loop again."""

from __future__ import annotations

import time

CALM_NS = 10_000_000_000
# What slow calls may take together in that time. A virtual machine's clocks count milliseconds in which its
# host ran something else: without an allowance a busy module would never come back.
SLOW_CALL_NS = 300_000
SLOW_CALLS_NS = 20_000_000


class Calm:
    """Since when calls have been quick."""

    def __init__(self) -> None:
        self._since_ns = 0
        self._slow_ns = 0

    def end(self) -> None:
        """Something was slow, or will be."""
        self._since_ns = time.monotonic_ns()
        self._slow_ns = 0

    def lasts(self, busy_ns: int) -> bool:
        """After a call that kept its worker busy for so long: whether 10 s have been calm."""
        if busy_ns > SLOW_CALL_NS:
            self._slow_ns += busy_ns
            if self._slow_ns > SLOW_CALLS_NS:
                self.end()
        return time.monotonic_ns() - self._since_ns > CALM_NS
