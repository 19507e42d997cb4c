"""Latencies in buckets of nanoseconds, at most 1/64 as wide as the times in them: as load.c has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

Bucket = tuple[int, int, int]
"""From, to (ns), how many."""

_OCTAVE_BITS = 6  # buckets of one nanosecond at first, then 64 for each doubling


@dataclass(frozen=True)
class Histogram:
    buckets: tuple[Bucket, ...]  # in order of time, none of them empty

    @classmethod
    def of(cls, times_ns: Iterable[int]) -> Histogram:
        counts: Counter[tuple[int, int]] = Counter()
        for ns in times_ns:
            shift = max(ns.bit_length() - _OCTAVE_BITS - 1, 0)
            counts[ns >> shift, shift] += 1
        buckets = ((at << shift, (at + 1) << shift, count) for (at, shift), count in counts.items())
        return cls(tuple(sorted(buckets)))

    @classmethod
    def merged(cls, histograms: Iterable[Histogram]) -> Histogram:
        """All that was counted; the histograms have the same bounds, as all have of one source."""
        counts: Counter[tuple[int, int]] = Counter()
        for histogram in histograms:
            for start, end, count in histogram.buckets:
                counts[start, end] += count
        return cls(tuple((start, end, counts[start, end]) for start, end in sorted(counts)))

    @property
    def total(self) -> int:
        return sum(count for _, _, count in self.buckets)

    def quantile_ns(self, share: float) -> float:
        """The time that `share` (0 to 1) of the counted ones do not exceed, interpolated in its bucket."""
        rank, below = share * self.total, 0
        for start, end, count in self.buckets:
            if below + count >= rank:
                return start + (end - start) * (rank - below) / count
            below += count
        raise ValueError("a histogram of nothing has no quantiles")
