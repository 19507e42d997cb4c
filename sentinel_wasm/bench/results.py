"""What was measured: rounds of two agents in turn, their medians, and the ratios within rounds."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from sentinel_wasm.bench.histogram import Histogram
from sentinel_wasm.bench.load import FAILED, Run
from sentinel_wasm.bench.machine import Machine

FIGURES = {
    "events_s": "events/s",
    "p50_us": "p50 µs",
    "p90_us": "p90 µs",
    "p99_us": "p99 µs",
    "p999_us": "p99.9 µs",
    "cpu_us": "CPU µs/event",
    "guest_us": "guest µs/event",
    "guest_share": "guest share of CPU",
    "client_busy": "client busy",
}
"""A round's figures and their titles."""

COMPARED = ("events_s", "p50_us", "p90_us", "p99_us", "cpu_us", "guest_us")
LEVEL = 0.95

Round = dict[str, float | None]
"""By the names of FIGURES; None where it cannot be known."""


def figures(run: Run, histogram: Histogram, cpu_ns: int | None, guest_ns: int | None) -> Round:
    """Of one load, with what the agent used of the processors for it, and how much of it in the module."""
    count = histogram.total
    return {
        "events_s": count / run.seconds,
        **{
            name: histogram.quantile_ns(share) / 1000
            for name, share in (("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999))
        },
        "cpu_us": None if cpu_ns is None else cpu_ns / count / 1000,
        "guest_us": None if guest_ns is None else guest_ns / count / 1000,
        "guest_share": guest_ns / cpu_ns if guest_ns is not None and cpu_ns else None,
        "client_busy": run.client_busy,
    }


class Side:
    """One of the two that are compared; the rounds are added as they are taken."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rounds: list[Round] = []
        self.answers: Counter[str] = Counter()
        self.histogram = Histogram(())

    def add(self, run: Run, cpu_ns: int | None, guest_ns: int | None) -> None:
        histogram = Histogram.of(run.times_ns)
        self.rounds.append(figures(run, histogram, cpu_ns, guest_ns))
        self.answers += run.answers
        self.histogram = Histogram.merged([self.histogram, histogram])

    def __getitem__(self, figure: str) -> float | None:
        """The median of the rounds."""
        values = [taken[figure] for taken in self.rounds]
        return median(value for value in values if value is not None) if None not in values else None

    @property
    def failed_share(self) -> float:
        return self.answers[FAILED] / self.answers.total()


@dataclass(frozen=True)
class Ratio:
    """The second side's figure divided by the first's, and between what it lies with LEVEL's certainty.

    It is the median of the rounds' own, so that the machine's drift cancels. None: there are too few to say.
    """

    median: float
    between: tuple[float, float] | None

    @classmethod
    def of(cls, ratios: list[float]) -> Ratio:
        return cls(median(ratios), interval(ratios))

    @property
    def differs(self) -> bool:
        return self.between is not None and not self.between[0] <= 1 <= self.between[1]


def interval(values: list[float]) -> tuple[float, float] | None:
    """Between which two of the values the median lies that they come from, whatever their distribution.

    By order statistics: each value is above the median or below it with the same chance.
    """
    ordered, count = sorted(values), len(values)
    outside = 2 * 0.5**count  # that all values are on one side of it
    if outside > 1 - LEVEL:
        return None
    left_out = 0
    while (next_outside := outside + 2 * math.comb(count, left_out + 1) * 0.5**count) <= 1 - LEVEL:
        left_out, outside = left_out + 1, next_outside
    return ordered[left_out], ordered[count - 1 - left_out]


@dataclass(frozen=True)
class Shape:
    """How events are sent: `requests` tells whether two results are of the same."""

    connections: int
    in_flight: int
    rounds: int
    seconds: float
    requests: str

    def __str__(self) -> str:
        return (
            f"{self.connections} connections × {self.in_flight} in flight, {self.rounds} ×"
            f" {self.seconds:g} s each, in turn"
        )


@dataclass(frozen=True)
class Results:
    machine: Machine
    shape: Shape
    first: Side
    second: Side

    def ratio(self, figure: str) -> Ratio | None:
        pairs = [
            (one[figure], other[figure])
            for one, other in zip(self.first.rounds, self.second.rounds, strict=True)
        ]
        ratios = [other / one for one, other in pairs if one and other]
        return Ratio.of(ratios) if len(ratios) == len(pairs) else None

    def as_json(self) -> dict[str, Any]:
        ratios = {name: self.ratio(name) for name in COMPARED}
        return {
            "machine": asdict(self.machine),
            "load": asdict(self.shape),
            "sides": [
                {
                    "name": side.name,
                    "median": {name: side[name] for name in FIGURES},
                    "rounds": side.rounds,
                    "answers": side.answers,
                    "histogram_ns": side.histogram.buckets,
                }
                for side in (self.first, self.second)
            ],
            "ratios": {name: asdict(ratio) for name, ratio in ratios.items() if ratio is not None},
        }
