"""The connections of one process, and the agent that answers them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from sentinel_wasm import logs
from sentinel_wasm.agent import Agent
from sentinel_wasm.guest.failures import Health
from sentinel_wasm.server.clock import LoopClock
from sentinel_wasm.server.connection import Connection
from sentinel_wasm.server.heap import Heap
from sentinel_wasm.settings import Settings

_log = structlog.stdlib.get_logger("server")

_FLUSH_S = 5.0


class Serving:
    """Made on the event loop that serves. `agent` answers, until `exchange` puts another in its place."""

    def __init__(
        self,
        settings: Settings,
        agent: Agent,
        lost: Callable[[], None] | None = None,
        health_changed: Callable[[Health], None] | None = None,
    ) -> None:
        """`lost` is called for each connection that is lost, `health_changed` when proxies are told it."""
        loop = asyncio.get_running_loop()
        self.agent = agent
        self.connections: set[Connection] = set()
        self.reports_sent = 0
        self._proxy_timeout_ms = settings.proxy_timeout_ms
        self._clock = LoopClock(loop)
        self._heap = Heap(loop)
        self._lost = lost
        self._health: Health = "healthy"  # as it was told last
        self._health_changed = health_changed

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
        self.tell_health()
        return old

    def set_debug(self, on: bool) -> None:
        """Whether debug lines and every decision are logged."""
        logs.set_debug(on)
        self.agent.set_debug(on)

    def tell_health(self) -> None:
        """To the proxies, where it has changed."""
        health = self.agent.health
        if health == self._health:
            return
        self._health = health
        for connection in list(self.connections):
            connection.send_health(health)
        if self._health_changed is not None:
            self._health_changed(health)

    async def drain(self) -> None:
        """Every event that came whole is answered; give the answers time to be read."""
        _log.info("stopping", connections=len(self.connections))
        for connection in list(self.connections):
            connection.drain()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _FLUSH_S
        while self.connections and loop.time() < deadline:
            await asyncio.sleep(0.01)
