"""What was measured: rounds of loads, their medians, and ratios within rounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.servers import Kind
from benchmarks.tools import Load, Shape
from sentinel_wasm.bench.histogram import Histogram
from sentinel_wasm.bench.machine import Machine

FIGURES = ("events_s", "p50_us", "p90_us", "p99_us", "p999_us", "max_us", "cpu_us", "client_busy")
COMPARED = ("events_s", "p50_us", "p99_us", "cpu_us")


@dataclass(frozen=True)
class Row:
    """One server under one shape of load: a figure of `FIGURES` for each round."""

    module: str
    shape: Shape
    server: str
    rounds: tuple[dict[str, float], ...]
    histogram: Histogram  # of all rounds

    @classmethod
    def of(cls, module: str, shape: Shape, server: str, rounds: list[tuple[Load, float]]) -> Row:
        """Of loads, each with the seconds of CPU that the server spent on it."""
        figures = tuple(
            {name: getattr(load, name) for name in FIGURES if name != "cpu_us"}
            | {"cpu_us": cpu_s / load.answered * 1e6}
            for load, cpu_s in rounds
        )
        return cls(module, shape, server, figures, Histogram.merged(load.histogram for load, _ in rounds))

    def __getitem__(self, figure: str) -> float:
        """The median of the rounds."""
        return median(figures[figure] for figures in self.rounds)


@dataclass(frozen=True)
class Footprint:
    """A server's processes on one module: medians of the rounds."""

    module: str
    server: str
    first_answer_s: float  # from its start
    rss_mib: float  # after the load


@dataclass(frozen=True)
class Ratio:
    """Ours divided by another's: medians of the rounds' own ratios, so that the machine's drift cancels."""

    module: str
    shape: Shape
    other: str
    figures: dict[str, float | None]  # None where a round was too short to measure


@dataclass(frozen=True)
class Results:
    machine: Machine
    rounds: int
    seconds: float
    headers: int
    servers: tuple[Kind, ...]
    rows: tuple[Row, ...]
    footprints: tuple[Footprint, ...]

    @property
    def modules(self) -> list[str]:
        return list(dict.fromkeys(row.module for row in self.rows))

    @property
    def shapes(self) -> list[Shape]:
        return list(dict.fromkeys(row.shape for row in self.rows))

    def row(self, module: str, shape: Shape, server: str) -> Row | None:
        for row in self.rows:
            if (row.module, row.shape, row.server) == (module, shape, server):
                return row
        return None

    def ratios(self) -> Iterator[Ratio]:
        for other in self.rows:
            mine = self.row(other.module, other.shape, "ours")
            if mine is not None and other is not mine:
                figures = {name: _ratio(mine, other, name) for name in COMPARED}
                yield Ratio(other.module, other.shape, other.server, figures)

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": asdict(self.machine),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "headers": self.headers,
            "servers": {
                kind.name: {"title": kind.title, "command": kind.command_line} for kind in self.servers
            },
            "rows": [
                {
                    **_where(row.module, row.shape),
                    "server": row.server,
                    "median": {name: row[name] for name in FIGURES},
                    "rounds": row.rounds,
                    "histogram_ns": row.histogram.buckets,
                }
                for row in self.rows
            ],
            "ratios": [
                {**_where(ratio.module, ratio.shape), "of": "ours", "to": ratio.other, **ratio.figures}
                for ratio in self.ratios()
            ],
            "footprints": [asdict(footprint) for footprint in self.footprints],
        }


def _where(module: str, shape: Shape) -> dict[str, Any]:
    return {"module": module, **asdict(shape)}


def _ratio(mine: Row, other: Row, figure: str) -> float | None:
    pairs = [(one[figure], two[figure]) for one, two in zip(mine.rounds, other.rounds, strict=True)]
    return median(one / two for one, two in pairs) if all(two > 0 for _, two in pairs) else None
