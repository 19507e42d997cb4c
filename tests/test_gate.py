"""The benchmark gate: its verdicts, and two sides in real processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ci.gate.build import GateError, Side, tree_of
from ci.gate.compare import Benchmark, Minima, compare, keep_least, slower, table
from ci.gate.sides import play_round, runnable

pytestmark = pytest.mark.parallel

FRAME = Benchmark("benchmarks/test_fixed_work.py::test_cut", "frame")
MAP = Benchmark("benchmarks/test_fixed_work.py::test_map[4]", "map")

SUITE = """
import pytest

@pytest.mark.benchmark(group="sums")
def test_sum(benchmark):
    assert benchmark(sum, range({length})) > 0

def test_of_something_else():
    assert False

def test_broken(benchmark):
    assert benchmark(sum, range(10)) == {ten}
"""


@pytest.mark.parametrize(
    ("base", "head", "verdict"),
    [
        (1e-6, 1e-6, "ok"),
        (1e-6, 1.099e-6, "ok"),
        (1e-6, 1.101e-6, "slower"),
        (1e-6, 0.92e-6, "ok"),
        (1e-6, 0.90e-6, "faster"),
        (2e-3, 2.4e-3, "slower"),
    ],
)
def test_over_10_percent_slower_is_slower(base: float, head: float, verdict: str) -> None:
    (line,) = compare({FRAME: base}, {FRAME: head})
    assert line.verdict == verdict
    assert (slower([line]) == [line]) == (verdict == "slower")


def test_only_what_both_have_is_compared_in_heads_order() -> None:
    new = Benchmark("benchmarks/test_new.py::test_new", "new")
    lines = compare({FRAME: 1e-6, MAP: 1e-6}, {MAP: 1e-6, new: 1e-6, FRAME: 3e-6})
    assert [line.benchmark for line in lines] == [MAP, FRAME]
    assert [line.benchmark.suite for line in slower(lines)] == ["frame"]


def test_the_least_is_kept() -> None:
    kept: Minima = {FRAME: 2e-6}
    keep_least(kept, {FRAME: 3e-6, MAP: 5e-6})
    keep_least(kept, {FRAME: 1e-6, MAP: 6e-6})
    assert kept == {FRAME: 1e-6, MAP: 5e-6}


def test_the_table_says_microseconds_ratio_and_verdict() -> None:
    head, frame, map_ = table(compare({FRAME: 1e-6, MAP: 2e-4}, {FRAME: 1.2e-6, MAP: 2e-4})).splitlines()
    assert head.split() == ["suite", "benchmark", "base", "µs", "head", "µs", "ratio"]
    assert frame.split() == ["frame", "test_cut", "1.000", "1.200", "1.200", "slower"]
    assert map_.split() == ["map", "test_map[4]", "200.000", "200.000", "1.000", "ok"]
    assert frame.index("1.000") + 2 == map_.index("200.000") + 4


def side(directory: Path, length: int, ten: int) -> Side:
    suites = directory / str(length)
    (suites / "benchmarks").mkdir(parents=True)
    (suites / "benchmarks" / "test_sums.py").write_text(SUITE.format(length=length, ten=ten))
    (suites / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    return Side(str(length), Path(sys.executable), suites)


def test_two_sides_run_in_turn_and_the_slower_one_is_found(tmp_path: Path) -> None:
    one, other = side(tmp_path, 5000, ten=45), side(tmp_path, 10_000, ten=44)
    sums, broken = runnable(one, must_pass=True)
    assert sums == Benchmark("benchmarks/test_sums.py::test_sum", "sums")
    assert broken.name == "test_broken"
    assert runnable(other, must_pass=False) == [sums]
    with pytest.raises(GateError, match=r"(?s)do not pass at 10000:.*test_broken"):
        runnable(other, must_pass=True)
    core = min(os.sched_getaffinity(0))
    (line,) = slower(compare(*play_round(one, other, [sums], core)))
    assert line.benchmark == sums
    absent = Benchmark("benchmarks/test_sums.py::test_absent", "sums")
    with pytest.raises(GateError, match="ended early at 5000"):
        play_round(one, other, [absent], core)


def test_a_base_that_is_not_there_is_named() -> None:
    with pytest.raises(GateError, match="no commit 'nowhere' here; fetch it first"):
        tree_of("nowhere")
