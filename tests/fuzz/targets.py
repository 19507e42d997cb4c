"""The targets by name, and the inputs that are kept for each."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("frames", "normaliser", "connection", "results", "guest_calls", "msgpack", "protobuf")

# Changes some bytes; the result may be as long as the limit.
Change = Callable[[bytes, int], bytes]
# The same by what knows the inputs' form: (data, limit, seed, how to change bytes).
Mutate = Callable[[bytes, int, int, Change], bytes]


def any_byte(data: bytes, limit: int, seed: int, change: Change) -> bytes:
    """For inputs without a form."""
    return change(data, limit)


@dataclass(frozen=True)
class Target:
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    mutate: Mutate


def load(name: str) -> Target:
    """Imports the target only now: an engine instruments what it imports."""
    target = importlib.import_module(f"tests.fuzz.{name}").TARGET
    assert isinstance(target, Target)
    return target


def kept(name: str) -> list[Path]:
    """The committed inputs of a target."""
    return [path for folder in ("corpus", "findings") for path in sorted((HERE / folder / name).glob("*"))]
