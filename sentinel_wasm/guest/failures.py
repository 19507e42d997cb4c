"""How often a module fails in a row, and when it may be started again."""

from __future__ import annotations

from collections.abc import Callable

import structlog

IN_A_ROW = 10
FIRST_PAUSE_S = 1
LONGEST_PAUSE_S = 30
_NS = 1_000_000_000

_log = structlog.stdlib.get_logger("pool")


class Failures:
    """Counts failures in a row: from the tenth on the module is degraded, and starts only after a pause.

    The pause is 1 s, and doubles to 30 s with each try that fails; one success ends it all. `on_change` is
    called when `degraded` changes.
    """

    def __init__(self, log: structlog.stdlib.BoundLogger = _log) -> None:
        self._log = log
        self.row = 0
        self.on_change: Callable[[bool], None] = lambda degraded: None
        self._pause_s = FIRST_PAUSE_S
        self._until_ns = 0
        self._reason = ""

    @property
    def degraded(self) -> bool:
        return self.row >= IN_A_ROW

    @property
    def trouble(self) -> str | None:
        """Why the module is degraded; None: it is not."""
        return f"the module keeps failing; last: {self._reason}" if self.degraded else None

    def failed(self, reason: str, now_ns: int, *, pauses: bool = True) -> None:
        """`pauses`: an instance has to be started for it."""
        self.row += 1
        self._reason = reason
        if self.row == IN_A_ROW:
            self._log.error("the module keeps failing", in_a_row=self.row, reason=reason)
            self.on_change(True)
        # What was under way when the pause began tells nothing new.
        if pauses and self.degraded and now_ns >= self._until_ns:
            self._until_ns = now_ns + self._pause_s * _NS
            self._log.error("the module is started again after a pause", pause_s=self._pause_s, reason=reason)
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)

    def succeeded(self) -> None:
        was_degraded = self.degraded
        self.row = 0
        self._pause_s = FIRST_PAUSE_S
        self._until_ns = 0
        if was_degraded:
            self._log.info("the module works again")
            self.on_change(False)

    def may_start(self, now_ns: int) -> bool:
        return now_ns >= self._until_ns

    def pause(self, now_ns: int) -> str:
        """Why no instance is started, for an event's answer."""
        left_s = max(self._until_ns - now_ns, 0) / _NS
        return f"the module keeps failing and is started again in {left_s:.0f} s; last: {self._reason}"
