"""How often a module fails in a row, and when it may be started again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import structlog

from sentinel_wasm.errors import ModuleError

Health = Literal["healthy", "degraded", "unhealthy"]
"""degraded: the module keeps failing, and is still asked; unhealthy: events are answered without it."""

IN_A_ROW = 10
FIRST_PAUSE_S = 1
LONGEST_PAUSE_S = 30
_NS = 1_000_000_000

_log = structlog.stdlib.get_logger("pool")


class Failures:
    """Counts failures in a row: from the tenth on the module is degraded, and starts only after a pause.

    The pause is 1 s, and doubles to 30 s with each try that fails; one success ends it all. From the first
    event that is refused in a pause the module is unhealthy. `on_change` is called when `health` has changed.
    """

    def __init__(self, log: structlog.stdlib.BoundLogger = _log) -> None:
        self._log = log
        self.row = 0
        self.on_change: Callable[[], None] = lambda: None
        self._refuses = False
        self._pause_s = FIRST_PAUSE_S
        self._until_ns = 0
        self._reason = ""

    @property
    def degraded(self) -> bool:
        return self.row >= IN_A_ROW

    @property
    def health(self) -> Health:
        if not self.degraded:
            return "healthy"
        return "unhealthy" if self._refuses else "degraded"

    @property
    def trouble(self) -> str | None:
        """Why the module is not healthy; None: it is."""
        if not self.degraded:
            return None
        unasked = ", and events are answered without it" if self._refuses else ""
        return f"the module keeps failing{unasked}; last: {self._reason}"

    def failed(self, reason: str, now_ns: int, *, pauses: bool = True) -> None:
        """`pauses`: an instance has to be started for it."""
        self.row += 1
        self._reason = reason
        if self.row == IN_A_ROW:
            self._log.error("the module keeps failing", in_a_row=self.row, reason=reason)
            self.on_change()
        # What was under way when the pause began tells nothing new.
        if pauses and self.degraded and now_ns >= self._until_ns:
            self._until_ns = now_ns + self._pause_s * _NS
            self._log.error("the module is started again after a pause", pause_s=self._pause_s, reason=reason)
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)

    def succeeded(self) -> None:
        was_degraded = self.degraded
        self.row = 0
        self._refuses = False
        self._pause_s = FIRST_PAUSE_S
        self._until_ns = 0
        if was_degraded:
            self._log.info("the module works again")
            self.on_change()

    def may_start(self, now_ns: int) -> bool:
        return now_ns >= self._until_ns

    def refuse(self, now_ns: int) -> ModuleError:
        """For an event that no instance is left or started for."""
        if self.degraded and not self._refuses:
            self._refuses = True
            self.on_change()
        left_s = max(self._until_ns - now_ns, 0) / _NS
        return ModuleError(
            f"the module keeps failing and is started again in {left_s:.0f} s; last: {self._reason}", "paused"
        )
