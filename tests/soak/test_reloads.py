"""Reloads under full load, of good modules and broken ones: each event is answered, by one good module whole.

SOAK_RELOADS says how many (make soak: 200).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from ..conftest import StartAgent, until
from ..load.clients import Run, apart, quantile, wait_for_answers
from ..reloading import TRAPS_AT_START, next_result, put, results, tagging
from ..scraping import LOCAL, Scraped
from .footprint import assert_ends_with_nothing_left, footprint, footprint_like

RELOADS = int(os.environ.get("SOAK_RELOADS", "4"))
WARM = min(20, RELOADS // 2)  # whatever happens for the first time has happened
TURN_S = 1.0
CALM_RUNS = min(8, RELOADS // 10)
GROWTH_MIB = 4
POOL = 4
# The event loop, a thread an instance, the ticker, and what asyncio.to_thread has at most.
MOST_THREADS = 1 + POOL + 1 + (os.cpu_count() or 1) + 4

LONG = "second" * 200
FIRST, SECOND = tagging("first"), tagging(LONG)
TURNS = [(SECOND, True), (TRAPS_AT_START, False), (FIRST, True), (SECOND[:-30], False)]


class Traffic:
    """Full load for as long as there are reloads, in runs of some seconds each, of which the sum is kept."""

    def __init__(self, submit: Callable[..., Future[Run]], socket: Path) -> None:
        self.answered = 0
        self.waits_ms: list[list[float]] = []
        self._submit = submit
        self._socket = socket
        self._run = self._begin()

    def _begin(self) -> Future[Run]:
        return self._submit(wait_for_answers, self._socket, TURN_S)

    def go_on(self) -> None:
        if self._run.done():
            self.run_out()

    def run_out(self) -> None:
        """The run that is under way, and then into the next."""
        self.end()
        self._run = self._begin()

    def end(self) -> None:
        """Of the run that is under way, and what must be true of each."""
        run = self._run.result()
        assert run.wrong == []
        assert run.unanswered() == 0
        for answer, _ in run.numbers_by_answer():
            assert answer["decision"] == "allow"
            assert answer["audit"]["tags"] in (["first"], [LONG]), answer
        waits_ms = run.waits_ms()
        self.answered += len(waits_ms)
        self.waits_ms.append(waits_ms)

    def p99_ms(self) -> float:
        """Of the run in the middle."""
        return sorted(quantile(waits_ms, 0.99) for waits_ms in self.waits_ms)[len(self.waits_ms) // 2]


def test_reloads_under_full_load_lose_nothing_and_leave_nothing_behind(
    start_agent: StartAgent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wasm = tmp_path / "filter.wasm"
    wasm.write_bytes(FIRST)
    agent = start_agent(wasm, *LOCAL)
    with apart() as submit:
        Traffic(submit, agent.socket).end()
        calm = Traffic(submit, agent.socket)
        for _ in range(CALM_RUNS):
            calm.run_out()
        calm.end()
        traffic = Traffic(submit, agent.socket)
        before = footprint(agent)
        for number in range(RELOADS):
            if number == WARM:
                before = footprint_like(agent, before, GROWTH_MIB)
            data, is_good = TURNS[number % len(TURNS)]
            put(wasm, data)
            agent.process.send_signal(signal.SIGHUP)
            result = next_result(agent, number)
            assert result["event"].startswith("reloaded" if is_good else "reload failed"), result
            traffic.go_on()
        traffic.end()
    after = footprint_like(agent, before, GROWTH_MIB)
    with capsys.disabled():
        print(
            f"\n{RELOADS} reloads beside {traffic.answered:,} events; p99 calm {calm.p99_ms():.2f} ms,"
            f" reloading {traffic.p99_ms():.2f} ms; after {WARM} reloads {before}; after all {after}"
        )
    assert after.descriptors <= before.descriptors
    assert after.threads <= MOST_THREADS
    assert after.rss_mib <= before.rss_mib + GROWTH_MIB
    until(lambda: Scraped(agent).value("instances") == POOL)
    good = sum(TURNS[number % len(TURNS)][1] for number in range(RELOADS))
    assert Scraped(agent).by("result", "reloads_total") == {"ok": good, "failed": RELOADS - good}
    assert len(results(agent)) == RELOADS
    assert "Traceback" not in agent.log
    assert_ends_with_nothing_left(agent)
