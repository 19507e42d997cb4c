"""Earlier results as what a module is held to.

Machines differ, and their moods: what is compared is how the module did against the reference, which was
measured in turn with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from sentinel_wasm.bench.measure import REFERENCE
from sentinel_wasm.bench.results import Ratio, Results, Shape
from sentinel_wasm.errors import UserError

LEAST_ROUNDS = 6  # fewer have no interval
_CHECKED = {"p50_us": "median latency", "cpu_us": "CPU per event"}
ALIKE = dict.fromkeys(_CHECKED, Ratio(1.0, (1.0, 1.0)))
_SHAPE = ("connections", "in_flight", "requests")


class Baseline:
    """A file that `bench MODULE --json` has written."""

    def __init__(self, path: Path, shape: Shape) -> None:
        """Raises UserError where it is none, or of another load than `shape`."""
        try:
            data = orjson.loads(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None
        except orjson.JSONDecodeError as error:
            raise UserError(f"{path} is not JSON: {error}") from None
        try:
            is_single = data["sides"][0]["name"] == REFERENCE
            others = [name for name in _SHAPE if data["load"][name] != getattr(shape, name)]
            self.machine = str(data["machine"]["cpu"]), int(data["machine"]["cores"])
            self.ratios = {name: _ratio(data["ratios"][name]) for name in _CHECKED if name in data["ratios"]}
        except (LookupError, TypeError, ValueError):
            is_single = False
        if not is_single:
            raise UserError(
                f"{path} was not written by `bench MODULE --json` with {LEAST_ROUNDS} rounds or more"
            )
        if others:
            raise UserError(f"{path} is of another load: of other {', '.join(others)}")


def slower(results: Results, threshold: float, held_to: Mapping[str, Ratio] = ALIKE) -> list[str]:
    """What is over so many percent worse than `held_to`, and by more than the rounds of either differ."""
    found = []
    for name, title in _CHECKED.items():
        then, now = held_to.get(name), results.ratio(name)
        if then is None or now is None or then.between is None or now.between is None:
            continue
        if now.median > then.median * (1 + threshold / 100) and now.between[0] > then.between[1]:
            found.append(
                f"{title} is {now.median / then.median - 1:.0%} worse: {now.median:.2f} times that of"
                f" {results.first.name} against {then.median:.2f}; allowed are {threshold:g}%"
            )
    return found


def _ratio(data: Any) -> Ratio:
    low, high = data["between"]
    return Ratio(float(data["median"]), (float(low), float(high)))
