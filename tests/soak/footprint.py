"""What an agent holds of the machine's: descriptors, threads and memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ..conftest import RunningAgent

CALM_S = 10.0


@dataclass(frozen=True)
class Footprint:
    descriptors: int
    threads: int
    rss_mib: float

    def __str__(self) -> str:
        return f"{self.descriptors} descriptors, {self.threads} threads, {self.rss_mib:.1f} MiB"


def footprint(agent: RunningAgent) -> Footprint:
    process = Path(f"/proc/{agent.process.pid}")
    return Footprint(
        len(list((process / "fd").iterdir())), len(list((process / "task").iterdir())), agent.rss_mib()
    )


def footprint_like(agent: RunningAgent, before: Footprint, growth_mib: float) -> Footprint:
    """The footprint once it is back where it was, or else as it is after a calm."""
    end = time.monotonic() + CALM_S
    while True:
        now = footprint(agent)
        back = (
            now.descriptors <= before.descriptors
            and now.threads <= before.threads
            and now.rss_mib <= before.rss_mib + growth_mib
        )
        if back or time.monotonic() > end:
            return now
        time.sleep(0.1)


def assert_ends_with_nothing_left(agent: RunningAgent) -> None:
    assert agent.stop() == 0
    last = agent.lines()[-1]
    assert (last["event"], last["threads"], last["instances"]) == ("stopped", 0, 0)
