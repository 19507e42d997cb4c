"""From what each benchmark took at least to a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LIMIT = 1.10

Verdict = Literal["ok", "slower", "faster"]


@dataclass(frozen=True)
class Benchmark:
    """A test that measures something, and the suite that it belongs to (pytest-benchmark's group)."""

    test: str
    suite: str

    @property
    def name(self) -> str:
        return self.test.rpartition("::")[2]


Minima = dict[Benchmark, float]
"""The least seconds that each benchmark took."""


@dataclass(frozen=True)
class Line:
    """One benchmark on both sides, in seconds."""

    benchmark: Benchmark
    base: float
    head: float

    @property
    def ratio(self) -> float:
        return self.head / self.base

    @property
    def verdict(self) -> Verdict:
        if self.ratio > LIMIT:
            return "slower"
        return "faster" if self.ratio < 1 / LIMIT else "ok"


def compare(base: Minima, head: Minima) -> list[Line]:
    """A line for each benchmark that both sides have, in head's order."""
    return [Line(benchmark, base[benchmark], head[benchmark]) for benchmark in head if benchmark in base]


def slower(lines: list[Line]) -> list[Line]:
    return [line for line in lines if line.verdict == "slower"]


def keep_least(kept: Minima, measured: Minima) -> None:
    for benchmark, seconds in measured.items():
        kept[benchmark] = min(seconds, kept.get(benchmark, seconds))


def table(lines: list[Line]) -> str:
    """In µs."""
    rows = [("suite", "benchmark", "base µs", "head µs", "ratio", "")]
    for line in lines:
        times = (f"{line.base * 1e6:.3f}", f"{line.head * 1e6:.3f}", f"{line.ratio:.3f}")
        rows.append((line.benchmark.suite, line.benchmark.name, *times, line.verdict))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 2 <= place <= 4 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
