"""The connections of one process, and the agent that answers them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from sentinel_wasm import logs
from sentinel_wasm.agent import Agent
from sentinel_wasm.server.clock import LoopClock
from sentinel_wasm.server.connection import Connection
from sentinel_wasm.server.heap import Heap
from sentinel_wasm.settings import Settings

_log = structlog.stdlib.get_logger("server")

_FLUSH_S = 5.0


class Serving:
    """Made on the event loop that serves. `agent` answers, until `exchange` puts another in its place."""

    def __init__(self, settings: Settings, agent: Agent, lost: Callable[[], None] | None = None) -> None:
        """`lost` is called for each connection that is lost."""
        loop = asyncio.get_running_loop()
        self.agent = agent
        self.connections: set[Connection] = set()
        self._proxy_timeout_ms = settings.proxy_timeout_ms
        self._clock = LoopClock(loop)
        self._heap = Heap(loop)
        self._lost = lost

    def connection(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(
            self.agent, self._proxy_timeout_ms, self._clock, self._heap, self.connections, self._lost
        )

    def exchange(self, agent: Agent) -> Agent:
        """Have another agent answer from the next event on; gives the old one, which may have some left."""
        agent.set_debug(logs.is_debug())
        old, self.agent = self.agent, agent
        for connection in self.connections:
            connection.exchange(agent)
        return old

    def set_debug(self, on: bool) -> None:
        """Whether debug lines and every decision are logged."""
        logs.set_debug(on)
        self.agent.set_debug(on)

    def tell_health(self, *, degraded: bool) -> None:
        for connection in list(self.connections):
            connection.send_health(2 if degraded else 1)

    async def drain(self) -> None:
        """Every event that came whole is answered; give the answers time to be read."""
        _log.info("stopping", connections=len(self.connections))
        for connection in list(self.connections):
            connection.drain()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _FLUSH_S
        while self.connections and loop.time() < deadline:
            await asyncio.sleep(0.01)
