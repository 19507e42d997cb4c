"""What leaves at the end of the event loop's turns, and how soon it sleeps then."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from sentinel_wasm.agent import Agent
from sentinel_wasm.client import event_v1, request_headers
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.module import Module
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameReader, encode_v1
from sentinel_wasm.server.clock import LoopClock
from sentinel_wasm.server.connection import Connection
from sentinel_wasm.server.heap import Heap
from sentinel_wasm.settings import Settings

from .fuzz.serving import Wire, read
from .guest import wat

EVENT = event_v1(EventKind.REQUEST_HEADERS, request_headers("id-1"))
MOST_DOUBT = 6
QUICK = wat.module(wat.says('{"decision":"allow"}'))
# Some 50 µs, of a hook that may hold its answers back: over 1.5 µs on any machine, under 2 ms.
BUSY = wat.module(
    wat.hook(
        "(loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))"
        " (br_if $l (i32.lt_u (local.get $i) (i32.const 100_000)))) (i64.const 0)"
    )
)


class Served:
    """A connection to an agent in this process, on a loop that does nothing else."""

    def __init__(self, text: str = QUICK) -> None:
        self.loop = uvloop.new_event_loop()
        settings = Settings(module=Path("m.wasm"), proxy_timeout_ms=60_000)
        self.agent = Agent(settings, Module(make_engine(), wat.binary(text), "m.wasm"))
        self.agent.attach(self.loop, lambda: None)
        self.clock = LoopClock(self.loop)
        self.client, server = socket.socketpair()
        self.client.setblocking(False)
        self.loop.run_until_complete(self._connect(server))

    async def _connect(self, server: socket.socket) -> None:
        heap = Heap(self.loop)
        await self.loop.connect_accepted_socket(
            lambda: Connection(self.agent, 60_000, self.clock, heap, set()), server
        )

    async def ask(self) -> None:
        await self.loop.sock_sendall(self.client, EVENT)
        assert await self.loop.sock_recv(self.client, 65_536)

    def close(self) -> None:
        self.client.close()
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.agent.close()
        self.loop.close()


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.close()


async def alone(served: Served, events: int) -> None:
    """Events between which there is time to sleep."""
    for _ in range(events):
        await served.ask()
        await asyncio.sleep(0.001)


async def close_together(served: Served, events: int) -> None:
    """Each comes a few turns of the loop after the answer to the one before."""
    for _ in range(events):
        await served.ask()
        for _ in range(3):
            await asyncio.sleep(0)


def test_lone_events_make_it_doubt_and_close_ones_trust_again(served: Served) -> None:
    assert served.clock.doubt == 0
    # 1 + 3 + 7 + 15 + 31 + 63 reads until it lingers for one in 64.
    served.loop.run_until_complete(alone(served, 130))
    assert served.clock.doubt == MOST_DOUBT
    # A machine's bad moment may come between two of them, but not each time.
    for _ in range(50):
        served.loop.run_until_complete(close_together(served, 64))
        if served.clock.doubt == 0:
            return
    pytest.fail("it never lingered again")


def test_an_idle_loop_sleeps(served: Served) -> None:
    served.loop.run_until_complete(close_together(served, 64))
    before = time.thread_time()
    served.loop.run_until_complete(asyncio.sleep(0.5))
    # A loop that never slept would take all of it.
    assert time.thread_time() - before < 0.1


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One that runs only where a test says so."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def busy(loop: asyncio.AbstractEventLoop) -> Iterator[tuple[Connection, Wire]]:
    """A connection to an agent whose module takes its time."""
    settings = Settings(module=Path("m.wasm"), timeout_ms=10_000)
    agent = Agent(settings, Module(make_engine(), wat.binary(BUSY), "m.wasm"))
    agent.attach(loop, lambda: None)
    wire = Wire(agent)
    connection = Connection(agent, 60_000, LoopClock(loop), Heap(loop), set())
    connection.connection_made(wire)
    yield connection, wire
    connection.connection_lost(None)
    loop.run_until_complete(asyncio.sleep(0.01))
    agent.close()


def test_an_answer_that_took_long_leaves_at_the_end_of_the_turn(
    loop: asyncio.AbstractEventLoop, busy: tuple[Connection, Wire]
) -> None:
    connection, wire = busy
    read(connection, EVENT)
    assert wire.written == b""
    loop.run_until_complete(asyncio.sleep(0))
    assert answers_in(wire.written) == 1


def test_answers_do_not_wait_for_many_others(busy: tuple[Connection, Wire]) -> None:
    """After 25 µs they leave, whatever else the turn brings."""
    connection, wire = busy
    for _ in range(4):
        read(connection, EVENT)
    assert answers_in(wire.written) >= 2


def test_answers_that_are_held_leave_before_the_connection_closes(busy: tuple[Connection, Wire]) -> None:
    connection, wire = busy
    read(connection, EVENT)
    assert wire.written == b""
    connection.drain()
    assert answers_in(wire.written) == 1
    assert wire.closed


def test_an_error_does_not_cost_the_answers_before_it(busy: tuple[Connection, Wire]) -> None:
    connection, wire = busy
    read(connection, EVENT + bytes(4))
    assert answers_in(wire.written) == 1
    assert wire.closed


def test_answers_that_are_held_for_a_client_that_is_gone_are_dropped(
    loop: asyncio.AbstractEventLoop, busy: tuple[Connection, Wire]
) -> None:
    connection, wire = busy
    read(connection, EVENT)
    connection.connection_lost(None)
    loop.run_until_complete(asyncio.sleep(0))
    assert wire.written == b""


def test_frames_leave_in_order(busy: tuple[Connection, Wire]) -> None:
    """What is written at once does not overtake what is held."""
    connection, wire = busy
    read(connection, EVENT)
    connection.write(encode_v1(b"{}"))
    assert answers_in(wire.written) == 2
    assert wire.written.endswith(encode_v1(b"{}"))


def answers_in(written: bytes) -> int:
    reader, count = FrameReader(protocol=1), 0
    reader.feed(written)
    while reader.next_frame() is not None:
        count += 1
    assert reader.unread == 0
    return count
