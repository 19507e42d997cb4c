"""What a program and its descendants take of the machine."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

from sentinel_wasm.server.usage import stat_field

_PARENT = 4  # in /proc/PID/stat
_CPU_CLOCK = 2  # of a process: the clock that clock_getcpuclockid(3) gives for it


def family(first: int) -> list[int]:
    """The ids of a process and its descendants; none where it has ended or the system has no /proc."""
    if sys.platform != "linux":
        return []
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                parents[int(entry.name)] = stat_field(entry, _PARENT)
    found = [first] if first in parents else []
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu_ns(first: int) -> int:
    """User and system time so far, of a process and its descendants that run now."""
    total = 0
    for pid in family(first):
        with contextlib.suppress(OSError):
            total += time.clock_gettime_ns(~pid << 3 | _CPU_CLOCK)
    return total


def rss_mib(first: int) -> float:
    """Resident memory; what processes share counts for each."""
    total = 0
    for pid in family(first):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return total / 1024
