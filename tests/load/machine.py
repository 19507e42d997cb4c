"""What else the machine is doing: timings say something of the agent only where that is little."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

from sentinel_wasm.server.usage import stat_field

_CORES = os.cpu_count() or 1
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def wait_until_idle(most_s: float, share: float = 0.9) -> None:
    """Give what else runs here some time to end."""
    end = time.monotonic() + most_s
    while time.monotonic() < end:
        watch = Watch()
        time.sleep(1)
        if watch.others_share() <= 1 - share:
            return


class Watch:
    """The share of all processors that others have used since this was made.

    Ours are this process, its children of multiprocessing, and `pids`.
    """

    def __init__(self, *pids: int) -> None:
        self._pids = [os.getpid(), *(child.pid or 0 for child in multiprocessing.active_children()), *pids]
        self._start = time.monotonic()
        self._others_s = self._others_now()

    def others_share(self) -> float:
        passed = time.monotonic() - self._start
        return (self._others_now() - self._others_s) / passed / _CORES

    def _others_now(self) -> float:
        return _busy_seconds() - sum(map(_used_seconds, self._pids))


def _busy_seconds() -> float:
    """Of all processors since the machine's start; what a hypervisor took away counts as well."""
    user, nice, system, _idle, _wait, interrupts, soft, stolen = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + interrupts + soft + stolen) * _TICK_S


def _used_seconds(pid: int) -> float:
    process = Path(f"/proc/{pid}")
    return (stat_field(process, 14) + stat_field(process, 15)) * _TICK_S  # user, system
