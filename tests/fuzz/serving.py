"""The agent as the targets have it: the one place that knows how its parts are made."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sentinel_wasm.agent import Agent
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.instance import Instance
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.output import GuestOutput
from sentinel_wasm.server.clock import LoopClock
from sentinel_wasm.server.connection import Connection
from sentinel_wasm.server.heap import Heap
from sentinel_wasm.settings import Dispatch, Isolation, Settings
from tests.guest import wat

# No machine is so slow that lateness is what a target finds.
PATIENT_MS = 600_000
_PATIENCE_S = 60  # for what workers have

MODES: tuple[tuple[Dispatch, Isolation], ...] = (
    ("auto", "pooled"),
    ("threads", "pooled"),
    ("inline", "request"),
    ("threads", "request"),
)


class Wire(asyncio.Transport):
    """A transport in memory, which keeps what is written.

    A double and no socket: a kernel between the input and the check would make a run depend on time, and
    the engine needs the same coverage from the same input, thousands of times a second.
    """

    def __init__(self, agent: Agent) -> None:
        none = socket.socket()
        none.close()
        super().__init__({"socket": none})
        self._agent = agent
        self.dropped = 0  # events that workers had when it was closed
        self.written = b""
        self.closed = False
        self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "written after the close"
        self.written += bytes(data)

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        self.dropped = self._agent.pending

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


@functools.cache
def module(text: str) -> Module:
    """Made at the first run, not at import: wasmtime's signal handlers must come after the engine's."""
    return Module(make_engine(), wat.binary(text), "fuzz.wasm")


@functools.cache
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def exchange(text: str, reads: list[bytes], mode: int) -> Wire:
    """A new agent on this module reads these pieces from one connection, until it closes."""
    dispatch, isolation = MODES[mode % len(MODES)]
    settings = Settings(
        module=Path("fuzz.wasm"),
        pool_size=1,
        timeout_ms=PATIENT_MS,
        dispatch=dispatch,
        isolation=isolation,
        request_instances=4,
    )
    agent = Agent(settings, module(text))
    agent.attach(loop(), lambda: None)
    wire = Wire(agent)
    connection = Connection(agent, PATIENT_MS, LoopClock(loop()), Heap(loop()), set())
    connection.connection_made(wire)
    for piece in reads:
        _until(lambda: wire.closed or not wire.paused)
        if wire.closed:
            break
        read(connection, piece)
    # What workers have is answered, and what was held for the end of the turn leaves.
    _until(lambda: not agent.pending)
    loop().run_until_complete(asyncio.sleep(0))
    connection.connection_lost(None)
    agent.close()
    return wire


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        loop().run_until_complete(asyncio.sleep(0.0001))


def read(connection: Connection, piece: bytes) -> None:
    """As uvloop does: the buffer is lent for each read, and given back before it is told."""
    while piece:
        with memoryview(connection.get_buffer(-1)) as room:
            size = min(len(room), len(piece))
            room[:size] = piece[:size]
        connection.buffer_updated(size)
        piece = piece[size:]


@contextlib.contextmanager
def instance(text: str) -> Iterator[Instance]:
    made = Instance(module(text), Limits(event_ms=PATIENT_MS), GuestOutput())
    made.start_within(None, PATIENT_MS)
    try:
        yield made
    finally:
        made.close()
