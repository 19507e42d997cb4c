"""What this process takes of the machine, under the names that Prometheus' own clients give it."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import sys
import time
from pathlib import Path

from sentinel_wasm.metrics import Samples

# Of /proc, which macOS does not have, nothing but our own directory is read: the systemd unit hides the rest.
_OWN = Path("/proc/self")
_DESCRIPTORS = _OWN / "fd" if sys.platform == "linux" else Path("/dev/fd")
_LOADED_S = time.time()


def samples() -> Samples:
    """What adds up over processes; without what takes a descriptor to see, where none is left, and without
    resident memory on macOS.
    """
    found: Samples = {
        "process_cpu_seconds_total": time.process_time(),
        "process_max_fds": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }
    with contextlib.suppress(OSError):
        found["process_open_fds"] = _open_descriptors()
        pages = int((_OWN / "statm").read_text().split()[1])
        found["process_resident_memory_bytes"] = pages * os.sysconf("SC_PAGESIZE")
    return found


def start() -> Samples:
    """When this process began."""
    return {"process_start_time_seconds": started()}


@functools.cache
def started() -> float:
    """The same in seconds since 1970, and the same each time, though the clock is set."""
    if sys.platform != "linux":
        return _LOADED_S  # soon after it
    began_s = stat_field(_OWN, 22) / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + began_s


def stat_field(process: Path, number: int) -> int:
    """Of its directory in /proc; numbers are those of proc(5), from 4 on. Raises OSError."""
    # The program's name, in parentheses, may have anything in it, and be cut within a letter.
    behind_name = (process / "stat").read_bytes().rpartition(b")")[2].split()
    return int(behind_name[number - 3])


def _open_descriptors() -> int:
    # One of those listed is the listing's own.
    return _told_descriptors() or len(os.listdir(_DESCRIPTORS)) - 1


def _told_descriptors() -> int:
    """Their number, where the kernel tells it without a list: since Linux 6.2; else 0."""
    return _DESCRIPTORS.stat().st_size if sys.platform == "linux" else 0
