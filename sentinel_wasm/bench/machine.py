"""What machine this is: a figure without it says nothing."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from sentinel_wasm import __version__
from sentinel_wasm.installed import wasmtime_version


@dataclass(frozen=True)
class Machine:
    cpu: str
    cores: int
    kernel: str
    python: str
    wasmtime: str
    sentinel_wasm: str
    load_average: float  # of the last minute, when the measurement began
    date: str

    def __str__(self) -> str:
        return (
            f"{self.cpu}, {self.cores} cores, {self.kernel}, {self.python}, wasmtime {self.wasmtime},"
            f" sentinel-wasm {self.sentinel_wasm}, load average {self.load_average:.2f}, {self.date}"
        )


def this_machine() -> Machine:
    return Machine(
        cpu=_cpu(),
        cores=_cores(),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        wasmtime=wasmtime_version(),
        sentinel_wasm=__version__,
        load_average=round(os.getloadavg()[0], 2),
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _cores() -> int:
    """Those that this process may use, as far as the system says."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()
