"""Runs benchmarks on both sides, in turns."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Collection, Iterator
from multiprocessing.connection import Pipe
from typing import Any

from ci.gate.build import ROOT, GateError, Side
from ci.gate.compare import Benchmark, Minima
from ci.gate.plugin import MEASURE, NEXT

TURNS = 40  # of each side, in each round, for each benchmark
PATIENCE_S = 120  # for a side's next word

PYTEST = ("-m", "pytest", "-p", "no:benchmark", "-p", "no:cacheprovider", "-p", "gate.plugin")


class Session:
    """A side's pytest process; `plugin` says what is said."""

    def __init__(self, side: Side, *arguments: str):
        self.name = side.name
        self.log = side.suites / f"{side.name}.log"
        self.gate, theirs = Pipe()
        with theirs, self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [side.python, *PYTEST, "-o", "addopts=--strict-markers", *arguments],
                cwd=side.suites,
                env={**os.environ, "GATE_FD": str(theirs.fileno()), "PYTHONPATH": str(ROOT / "ci")},
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
            )

    def hear(self) -> tuple[Any, ...] | None:
        """What it says next; None at its end."""
        if not self.gate.poll(PATIENCE_S):
            raise self.error(f"said nothing for {PATIENCE_S} s")
        try:
            said: tuple[Any, ...] = self.gate.recv()
        except (EOFError, ConnectionError):
            return None
        return said

    def must_say(self, word: str) -> tuple[Any, ...]:
        """The rest of what it says next with this word."""
        while (said := self.hear()) is not None:
            if said[0] == word:
                return said[1:]
        raise self.error("ended early")

    def measure(self) -> float:
        self.gate.send(MEASURE)
        (seconds,) = self.must_say("took")
        return float(seconds)

    def go_on(self) -> None:
        self.gate.send(NEXT)

    def error(self, what: str) -> GateError:
        return GateError(f"the benchmarks {what} at {self.name}:\n{self.log.read_text()}")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.gate.close()


@contextlib.contextmanager
def session(side: Side, *arguments: str) -> Iterator[Session]:
    one = Session(side, *arguments)
    try:
        yield one
    finally:
        one.stop()


def runnable(side: Side, must_pass: bool) -> list[Benchmark]:
    """The benchmarks that pass on a side. Raises GateError where one does not and must."""
    found: dict[str, Benchmark] = {}
    passed = []
    with session(side, "--continue-on-collection-errors", "benchmarks") as one:
        while (said := one.hear()) is not None:
            if said[0] == "at":
                found[said[1]] = Benchmark(said[1], said[2])
                one.go_on()
            else:
                passed.append(found[said[1]])
        if one.process.wait() and must_pass:
            raise one.error("do not pass")
    return passed


def play_round(base: Side, head: Side, chosen: Collection[Benchmark], core: int) -> tuple[Minima, Minima]:
    """What each benchmark took at least on base and on head, in new processes on one core."""
    tests = [benchmark.test for benchmark in chosen]
    minima: tuple[Minima, Minima] = ({}, {})
    with on_core(core), session(base, *tests) as one, session(head, *tests) as other:
        for benchmark in chosen:
            for side in (one, other):
                if side.must_say("at")[0] != benchmark.test:
                    raise side.error("came in another order")
            took = [[side.measure() for side in (one, other, other, one)] for _ in range(TURNS // 2)]
            minima[0][benchmark] = min(min(turn[0], turn[3]) for turn in took)
            minima[1][benchmark] = min(min(turn[1], turn[2]) for turn in took)
            for side in (one, other):
                side.go_on()
    return minima


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Meanwhile this process, and what it starts, runs on this core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
