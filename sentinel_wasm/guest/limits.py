"""What one instance may use."""

from __future__ import annotations

from dataclasses import dataclass

START_MS = 10_000
MIB = 1024 * 1024

# A table element takes 8 bytes; Go's and C++'s function tables have some ten thousand.
TABLE_ELEMENTS = 1_000_000
TABLES = 4
STACK_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in ms. `event_ms` from an event's arrival to its answer; `start_ms` for the start function,
    `_initialize` and the first `on_configure`, before traffic; `restart_ms` for the same when an instance
    that has failed is replaced.
    """

    event_ms: int = 40
    start_ms: int = START_MS
    restart_ms: int = 1_000
