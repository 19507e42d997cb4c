"""The connections of one process, and the agent that answers them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from sentinel_wasm import logs
from sentinel_wasm.agent import Agent
from sentinel_wasm.guest.failures import Health
from sentinel_wasm.protocol.events import Configure
from sentinel_wasm.server.clock import LoopClock
from sentinel_wasm.server.connection import Connection
from sentinel_wasm.server.handover import Carried
from sentinel_wasm.server.heap import Heap
from sentinel_wasm.server.store import Store
from sentinel_wasm.settings import Settings

if TYPE_CHECKING:
    from sentinel_wasm.grpc.listener import Listener

_log = structlog.stdlib.get_logger("server")

_FLUSH_S = 5.0
_PAUSE_S = 0.001
_READ_BYTES = 65_536
_READS = 16


class Serving:
    """Made on the event loop that serves. `agent` answers, until `exchange` puts another in its place."""

    def __init__(
        self,
        settings: Settings,
        agent: Agent,
        lost: Callable[[], None] | None = None,
        store: Store | None = None,
    ) -> None:
        """`lost` is called for each connection that is lost; `store` keeps them beyond this process."""
        loop = asyncio.get_running_loop()
        self.agent = agent
        self.connections: set[Connection] = set()
        self.reports_sent = 0
        self.grpc: Listener | None = None
        self._proxy_timeout_ms = settings.proxy_timeout_ms
        self._clock = LoopClock(loop)
        self._heap = Heap(loop)
        self._lost = lost
        self._health: Health = "healthy"  # as it was told last
        self.health_changed: list[Callable[[Health], None]] = []
        """Called when proxies are told it."""
        self._store = store
        if store is not None:
            agent.configured_changed = store.keep_configured
        self._configuring = asyncio.Lock()

    async def listen_grpc(self, settings: Settings) -> None:
        """Answer events over gRPC too, where --grpc says so. Raises SocketError."""
        if settings.grpc is None:
            return
        from sentinel_wasm.grpc.listener import Listener  # loads grpc, of which few have need

        self.grpc = Listener(self, settings)
        await self.grpc.start()

    def connection(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(
            self.agent,
            self._proxy_timeout_ms,
            self._clock,
            self._heap,
            self.connections,
            self._lost,
            self._store,
        )

    async def adopt(self, carried: Carried) -> None:
        """Go on with another process's connection, whose socket is ours now. Raises OSError."""
        async with self._configuring:
            await self._configure(carried.configured)
        sock, state = carried.sock, carried.state
        sock.setblocking(False)
        if state.kept_as and self._store is None:
            Store().drop(state.kept_as)
            state = state._replace(kept_as="")
        connection = self.connection()
        # What has come while nobody looked is told from what comes from now on: over v1 it may be too late.
        connection.resume(state, _what_waits(sock))
        await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock)
        connection.stay()

    async def _configure(self, configured: Configure | None) -> None:
        """As the module of the other process was."""
        if configured is None or configured == self.agent.configured:
            return
        error = await self.agent.configure(configured)
        if error is not None:
            _log.error("the module refuses the configuration of the process before this", reason=str(error))

    def exchange(self, agent: Agent) -> Agent:
        """Have another agent answer from the next event on; gives the old one, which may have some left."""
        agent.set_debug(logs.is_debug())
        old, self.agent = self.agent, agent
        agent.configured, agent.configured_changed = old.configured, old.configured_changed
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
        for told in self.health_changed:
            told(health)

    async def keep_all(self) -> None:
        """Leave to the store what it keeps, once its answers are with the kernel."""
        if self._store is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _FLUSH_S / 2
        while (staying := [one for one in self.connections if one.is_kept]) and loop.time() < deadline:
            for connection in staying:
                if connection.prepare_to_leave():
                    state = connection.leave()
                    self._store.keep_rest(state.kept_as, state.unread)
            await asyncio.sleep(_PAUSE_S)
        for connection in staying:
            connection.stay()

    async def drain(self) -> None:
        """Every event that came whole is answered; give the answers time to be read."""
        _log.info("stopping", connections=len(self.connections))
        for connection in list(self.connections):
            connection.drain()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _FLUSH_S
        over_grpc = None if self.grpc is None else loop.create_task(self.grpc.end(_FLUSH_S))
        while self.connections and loop.time() < deadline:
            await asyncio.sleep(0.01)
        if over_grpc is not None:
            await over_grpc


def _what_waits(sock: socket.socket) -> bytes:
    read = []
    with contextlib.suppress(OSError):
        for _ in range(_READS):
            read.append(sock.recv(_READ_BYTES))
            if len(read[-1]) < _READ_BYTES:
                break
    return b"".join(read)
