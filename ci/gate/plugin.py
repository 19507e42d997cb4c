"""A pytest plugin: runs the benchmarks of one side, each when and as often as the gate says.

The suites stay as pytest-benchmark has them; in its place this gives them a `benchmark` that calls what it
is given. Over the connection whose descriptor is in GATE_FD it says ("at", test, suite) and then, for each
MEASURE that it hears, ("took", seconds a call), until NEXT; and ("passed", test) when the test has ended
well.
"""

from __future__ import annotations

import functools
import os
import timeit
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import ParamSpec, TypeVar

import pytest

MEASURE, NEXT = "measure", "next"

SAMPLE_S = 100e-6  # short enough to lie between a machine's bad moments, long beside what the clock costs
SAMPLES = 8  # a turn; the first finds cold caches

P = ParamSpec("P")
R = TypeVar("R")


class Benchmark:
    """As much of pytest-benchmark's fixture as the suites use."""

    def __init__(self, gate: Connection, test: str, suite: str):
        self.gate = gate
        self.test = test
        self.suite = suite

    def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        result = function(*args, **kwargs)
        timer = timeit.Timer(functools.partial(function, *args, **kwargs))
        number = max(1, round(SAMPLE_S / min(timer.repeat(20, 1))))
        self.gate.send(("at", self.test, self.suite))
        while self.gate.recv() == MEASURE:
            self.gate.send(("took", min(timer.repeat(SAMPLES, number)) / number))
        return result


class Runner:
    def __init__(self, gate: Connection):
        self.gate = gate

    @pytest.fixture
    def benchmark(self, request: pytest.FixtureRequest) -> Benchmark:
        marker = request.node.get_closest_marker("benchmark")
        suite = marker.kwargs.get("group", "") if marker else ""
        return Benchmark(self.gate, request.node.nodeid, suite)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if "benchmark" in getattr(item, "fixturenames", ())]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.gate.send(("passed", report.nodeid))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "benchmark: pytest-benchmark's, which the gate runs without")
    config.pluginmanager.register(Runner(Connection(int(os.environ["GATE_FD"]))))
