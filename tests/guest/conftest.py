"""Instances and pools of modules given as text, and the log they write to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest
from structlog.testing import capture_logs

from sentinel_wasm import logs
from sentinel_wasm.guest.engine import Engine, make_engine
from sentinel_wasm.guest.instance import Instance
from sentinel_wasm.guest.limits import MIB, Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.output import GuestOutput
from sentinel_wasm.guest.pool import Pool

from ..answering import Asked
from . import wat

LIMIT_MS = 40  # for what is to be interrupted
PATIENT_MS = 10_000  # for all else: others use the machine too
LIMITS = Limits(event_ms=PATIENT_MS)
SIZE = 4  # instances of a pool


class Load(Protocol):
    def __call__(self, text: str | bytes) -> Module: ...


class Fill(Protocol):
    def __call__(self, text: str, size: int = SIZE, limits: Limits = LIMITS, **options: Any) -> Asked: ...


class Start(Protocol):
    def __call__(self, text: str, limit_ms: int = PATIENT_MS) -> Instance: ...


def started_instance(module: Module, limit_ms: int = PATIENT_MS) -> Instance:
    instance = Instance(module, Limits(event_ms=limit_ms), GuestOutput())
    instance.start_within(None, PATIENT_MS)
    return instance


@pytest.fixture(scope="session")
def engine() -> Engine:
    """With room for the memories over 2 GiB that show whether pointers are unsigned."""
    return make_engine(instances=1000, memory_bytes=4096 * MIB)


@pytest.fixture(scope="session")
def load(engine: Engine) -> Load:
    """Compiles and checks modules, of text or of a finished binary."""

    def load(text: str | bytes) -> Module:
        return Module(engine, wat.binary(text) if isinstance(text, str) else text, "filter.wasm")

    return load


@pytest.fixture
def start(load: Load) -> Iterator[Start]:
    """Starts instances of modules given as text; they are closed afterwards."""
    started: list[Instance] = []

    def start(text: str, limit_ms: int = PATIENT_MS) -> Instance:
        started.append(started_instance(load(text), limit_ms))
        return started[-1]

    yield start
    for instance in started:
        instance.close()


@pytest.fixture
def fill(load: Load) -> Iterator[Fill]:
    """Makes pools of modules given as text; they are closed afterwards."""
    filled: list[Asked] = []

    def fill(text: str, size: int = SIZE, limits: Limits = LIMITS, **options: Any) -> Asked:
        filled.append(Asked(Pool(load(text), size, limits, **options)))
        return filled[-1]

    yield fill
    for asked in filled:
        asked.close()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The log's entries, as structlog has them, debug lines too."""
    monkeypatch.setattr(logs._State, "is_debug", True)
    with capture_logs() as entries:
        yield entries
