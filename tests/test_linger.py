"""How soon the event loop sleeps after a read: later while that pays, at once where it does not."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import uvloop

from sentinel_wasm.agent import Agent
from sentinel_wasm.client import request_headers
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.module import Module
from sentinel_wasm.protocol.frames import encode_v1
from sentinel_wasm.server.clock import LoopClock
from sentinel_wasm.server.connection import Connection
from sentinel_wasm.server.heap import Heap
from sentinel_wasm.settings import Settings

from .guest import wat

EVENT = encode_v1(
    orjson.dumps({"version": 1, "event_type": "request_headers", "payload": request_headers("id-1")})
)
MOST_DOUBT = 6


class Served:
    """A connection to an agent in this process, on a loop that does nothing else."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        text = wat.module(wat.says('{"decision":"allow"}'))
        settings = Settings(module=Path("m.wasm"), proxy_timeout_ms=60_000)
        self.agent = Agent(settings, Module(make_engine(), wat.binary(text), "m.wasm"))
        self.agent.attach(self.loop, lambda degraded: None)
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
