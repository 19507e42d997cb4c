"""Instances of modules given as text, and the log they write to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest
import wasmtime
from structlog.testing import capture_logs

from sentinel_wasm.guest.instance import Instance
from sentinel_wasm.guest.module import Module, make_engine
from sentinel_wasm.guest.output import GuestOutput

from . import wat

LIMIT_MS = 40


class Load(Protocol):
    def __call__(self, text: str | bytes) -> Module: ...


class Start(Protocol):
    def __call__(self, text: str, limit_ms: int = LIMIT_MS) -> Instance: ...


@pytest.fixture(scope="session")
def engine() -> wasmtime.Engine:
    return make_engine()


@pytest.fixture(scope="session")
def load(engine: wasmtime.Engine) -> Load:
    """Compiles and checks modules, of text or of a finished binary."""

    def load(text: str | bytes) -> Module:
        return Module(engine, wat.binary(text) if isinstance(text, str) else text, "filter.wasm")

    return load


@pytest.fixture
def start(load: Load) -> Iterator[Start]:
    """Starts instances of modules given as text; they are closed afterwards."""
    started: list[Instance] = []

    def start(text: str, limit_ms: int = LIMIT_MS) -> Instance:
        started.append(Instance(load(text), limit_ms, GuestOutput()))
        return started[-1]

    yield start
    for instance in started:
        instance.close()


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """The log's entries, as structlog has them."""
    with capture_logs() as entries:
        yield entries
