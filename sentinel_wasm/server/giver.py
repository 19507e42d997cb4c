"""The old process's side of a handover: connections leave, each when nothing is under way on it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque

import structlog

from sentinel_wasm.server.connection import Connection
from sentinel_wasm.server.handover import TAKEN, Carried, send_connection
from sentinel_wasm.server.serving import Serving

_log = structlog.stdlib.get_logger("handover")

# Connections on the way: each of them waits until the new process has taken those before it.
_MOST_ON_THE_WAY = 16
_PAUSE_S = 0.001
_PATIENCE_S = 10.0  # what has not left by then is drained


class Giver:
    """Gives the connections of this process away. Made on the event loop that serves them."""

    def __init__(self, serving: Serving, end: socket.socket) -> None:
        self._serving = serving
        self._end = end
        self._loop = asyncio.get_running_loop()
        # What the other side does not have yet is kept, and goes on here where it dies.
        self._untaken: deque[Carried] = deque()
        self._is_gone = False
        self._hangs = False
        self._heard = asyncio.Event()
        end.setblocking(False)

    async def give_all(self) -> bool:
        """False where the other side is gone: what it has not taken goes on here.

        What cannot leave in time, because its client does not read, stays here and is to be drained.
        """
        self._loop.add_reader(self._end, self._hear)
        try:
            deadline = self._loop.time() + _PATIENCE_S
            while self._takes and self._loop.time() < deadline:
                await asyncio.sleep(_PAUSE_S)  # connections that were just accepted are made meanwhile
                if not self._serving.connections:
                    break
                await self._give_what_can_leave()
            await self._wait_for(0)
        finally:
            self._loop.remove_reader(self._end)
        if self._is_gone:
            await self._take_back()
        for carried in self._untaken:
            carried.sock.close()
        for connection in list(self._serving.connections):
            connection.stay()
        return not self._is_gone

    @property
    def _takes(self) -> bool:
        return not self._is_gone and not self._hangs

    async def _give_what_can_leave(self) -> None:
        """Those that are free leave at once; the others are read from no more, and leave when they are."""
        for connection in list(self._serving.connections):
            await self._wait_for(_MOST_ON_THE_WAY - 1)
            if not self._takes:
                return
            if connection.prepare_to_leave():
                await self._give(connection)
            await asyncio.sleep(0)  # the others are served meanwhile

    async def _give(self, connection: Connection) -> None:
        try:
            sock = socket.socket(fileno=os.dup(connection.descriptor))
        except OSError as error:
            _log.error("a connection cannot leave yet", reason=error.strerror)
            return
        carried = Carried(sock, connection.leave(), self._serving.agent.configured)
        self._untaken.append(carried)
        while not self._is_gone:
            try:
                send_connection(self._end, carried)
            except (BlockingIOError, InterruptedError):
                await asyncio.sleep(_PAUSE_S)
            except OSError:
                self._is_gone = True
            else:
                return

    async def _wait_for(self, untaken: int) -> None:
        """Until at most so many are on the way.

        Those that a living process does not take are its own all the same: it may be about to.
        """
        deadline = self._loop.time() + _PATIENCE_S
        while len(self._untaken) > untaken and self._takes:
            self._heard.clear()
            try:
                await asyncio.wait_for(self._heard.wait(), deadline - self._loop.time())
            except asyncio.TimeoutError:
                _log.error("the new process does not take connections", untaken=len(self._untaken))
                self._hangs = True

    def _hear(self) -> None:
        try:
            kind = self._end.recv(1)
        except BlockingIOError:
            return
        except OSError:
            kind = b""
        if kind == TAKEN and self._untaken:
            self._untaken.popleft().sock.close()
        else:
            self._is_gone = True
            self._loop.remove_reader(self._end)
        self._heard.set()

    async def _take_back(self) -> None:
        for carried in self._untaken:
            await self._serving.adopt(carried)
        self._untaken.clear()
