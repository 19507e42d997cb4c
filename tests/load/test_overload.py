"""Three times what a module can take: everything is answered in time, and nothing stays behind."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest

from ..conftest import RunningAgent, StartAgent
from .clients import Run, apart, follow_clock, quantile, wait_for_answers
from .conftest import Work
from .machine import Watch, wait_until_idle

pytestmark = pytest.mark.load

GUEST_MS = 1.0
TIMES = 3
OVERLOAD_S = 30
TIMEOUT_MS = 40
LATE_MS = TIMEOUT_MS + 10  # p99.9, from send to answer
GROWTH_MIB = 8
WARM_S, CALM_S = 2, 4
SETTLED_S = 3  # into the overload, when the level of memory is taken
RECOVERY_S = 1.0
FULL_SPEED = 0.8  # of the speed before

# The client must be better than what it measures, or the figures are its own.
CLIENT_LATE_MS = 5  # p99.9
OTHERS_SHARE = 0.1  # of all processors: what runs beside the agent and its client
TRIES = 3
WAIT_S = 120  # for the machine to become idle

Submit = Callable[..., Future[Run]]


@dataclass(frozen=True)
class Kinds:
    """Events by who answered them."""

    module: list[int]
    overload: list[int]
    deadline: list[int]


def kinds_of(run: Run) -> Kinds:
    kinds = Kinds([], [], [])
    for answer, numbers in run.numbers_by_answer():
        which(answer, kinds).extend(numbers)
    return kinds


def which(answer: dict[str, Any], kinds: Kinds) -> list[int]:
    tags, reasons = answer["audit"]["tags"], answer["audit"]["reason_codes"]
    if answer["decision"] == "allow" and tags == ["worked"]:
        return kinds.module
    assert answer["decision"] == {"block": {"status": 500, "body": "Wasm Error", "headers": None}}, answer
    if "wasm-overload" in tags:
        return kinds.overload
    assert "wasm-error" in tags, answer
    assert any(f"deadline of {TIMEOUT_MS} ms exceeded" in reason for reason in reasons), answer
    return kinds.deadline


def speed(run: Run, begin: float = 0.0) -> float:
    """The module's answers a second, in the best half second of a closed loop."""
    begin = max(run.sent[0], begin)
    windows = [0] * int((run.sent[-1] - begin) * 2)
    for number in kinds_of(run).module:
        window = math.floor((run.answered[number] - begin) * 2)
        if 0 <= window < len(windows):
            windows[window] += 1
    return max(windows) * 2


def assert_each_answered_once(run: Run) -> None:
    assert run.wrong == []
    assert run.unanswered() == 0


def closed_loop(submit: Submit, agent: RunningAgent, seconds: float) -> Run:
    run = submit(wait_for_answers, agent.socket, seconds).result()
    assert_each_answered_once(run)
    return run


def open_loop(submit: Submit, agent: RunningAgent, rate: float) -> tuple[Run, list[float]]:
    """The client's record, and the agent's memory twice a second."""
    future = submit(follow_clock, agent.socket, rate, OVERLOAD_S)
    levels = []
    while not future.done():
        levels.append(agent.rss_mib())
        time.sleep(0.5)
    return future.result(), levels


@dataclass(frozen=True)
class Try:
    """One overload, and the closed loop's speed before and after."""

    before: float
    run: Run
    levels: list[float]
    after: float
    refused_after: int  # wasm-overload, once the time to recover is over
    others_share: float

    @property
    def counts(self) -> bool:
        """Whether it measured the agent, and not the machine or the client."""
        client_late_ms = quantile(sorted(self.run.late), 0.999) * 1000
        return client_late_ms <= CLIENT_LATE_MS and self.others_share <= OTHERS_SHARE


def overload(submit: Submit, agent: RunningAgent) -> Try:
    wait_until_idle(WAIT_S)
    watch = Watch(agent.process.pid)
    before = speed(closed_loop(submit, agent, CALM_S))
    run, levels = open_loop(submit, agent, TIMES * before)
    recovered = run.sent[-1] + RECOVERY_S
    calm = closed_loop(submit, agent, CALM_S)
    refused = sum(calm.sent[number] > recovered for number in kinds_of(calm).overload)
    return Try(before, run, levels, speed(calm, recovered), refused, watch.others_share())


@pytest.mark.parametrize("dispatch", ["auto", "threads"])
def test_overload_is_answered_in_time_and_forgotten(
    start_agent: StartAgent, work: Work, dispatch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wait_until_idle(WAIT_S)
    agent = start_agent(work(GUEST_MS), "--timeout-ms", str(TIMEOUT_MS), "--dispatch", dispatch)
    with apart() as submit:
        closed_loop(submit, agent, WARM_S)
        for _ in range(TRIES):
            found = overload(submit, agent)
            with capsys.disabled():
                print(f"\n{dispatch}: {report(found)}")
            if found.counts:
                break
        else:
            pytest.fail(f"the machine or the client was too busy to measure the agent, {TRIES} times")

    run, levels = found.run, found.levels[SETTLED_S * 2 :]
    assert_each_answered_once(run)
    late_ms = quantile(run.waits_ms(), 0.999)
    assert late_ms <= LATE_MS
    assert kinds_of(run).overload != []
    assert max(levels) <= levels[0] + GROWTH_MIB
    assert found.refused_after == 0
    assert found.after >= FULL_SPEED * found.before


def report(found: Try) -> str:
    run, levels = found.run, found.levels
    kinds, waits, late = kinds_of(run), run.waits_ms(), sorted(run.late)
    shares = [f"p{share * 100:g} {quantile(waits, share):.1f}" for share in (0.5, 0.99, 0.999)]
    return (
        f"closed loop {found.before:.0f}/s; {len(run.sent):,} events at {TIMES} times that, answered"
        f" {len(kinds.module):,} by the module, {len(kinds.overload):,} wasm-overload,"
        f" {len(kinds.deadline):,} past the deadline, {run.unanswered()} not at all;"
        f" {', '.join(shares)}, longest {waits[-1]:.1f} ms;"
        f" the client late by p99.9 {quantile(late, 0.999) * 1000:.1f}, at most {late[-1] * 1000:.1f} ms;"
        f" others on the machine {found.others_share:.0%};"
        f" RSS {levels[0]:.1f}, {levels[SETTLED_S * 2]:.1f}, {levels[-1]:.1f} MiB;"
        f" afterwards {found.after:.0f}/s, {found.refused_after} refused"
    )
