"""Mixed traffic from 50 connections: everything is answered rightly, once, and nothing stays behind.

SOAK_SECONDS says for how long (make soak: ten minutes); SOAK_SEED repeats a run's requests.
"""

from __future__ import annotations

import os
import random
import time

import pytest
import uvloop

from ..conftest import BuildWat, RunningAgent, StartAgent
from . import filter
from .behaviours import Soak
from .footprint import assert_ends_with_nothing_left, footprint, footprint_like

SECONDS = float(os.environ.get("SOAK_SECONDS", "10"))
SEED = int(os.environ.get("SOAK_SEED") or random.randrange(10**6))
WARM_S = max(5.0, min(60.0, SECONDS / 10))

TIMEOUT_MS = 100
GROWTH_MIB = 24 if SECONDS >= 60 else 48  # while little has passed, malloc has not seen the largest yet
MOST_LATE = 0.02  # of the answers: those behind a module that spins, on a machine with other work to do


def soak(agent: RunningAgent, seconds: float, seed: int) -> Soak:
    traffic = Soak(agent.socket, seed)
    uvloop.run(traffic.run(seconds))
    return traffic


def test_mixed_traffic_is_answered_rightly_and_leaves_nothing_behind(
    start_agent: StartAgent, build_wat: BuildWat, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = start_agent(build_wat(filter.text()), "--timeout-ms", str(TIMEOUT_MS))
    warm = soak(agent, WARM_S, SEED + 1)
    time.sleep(1)
    before = footprint(agent)
    traffic = soak(agent, SECONDS - WARM_S, SEED)
    after = footprint_like(agent, before, GROWTH_MIB)

    counts = traffic.tally.counts
    with capsys.disabled():
        print(f"\nseed {SEED}: {dict(sorted(counts.items()))}\nbefore {before}; after {after}")
    wrong = warm.tally.wrong + traffic.tally.wrong
    assert not wrong, "\n".join([f"{len(wrong)} wrong, of which the first:", *wrong[:5]])
    assert counts["sent"] == counts["answered"] + counts["cut off"]
    assert counts["late"] <= MOST_LATE * counts["answered"]
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads
    assert after.rss_mib <= before.rss_mib + GROWTH_MIB
    assert "internal error" not in agent.log
    assert_ends_with_nothing_left(agent)
