"""A worker's serving: connections come from the supervisor, and it is told when they close."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine

import structlog
import uvloop

from sentinel_wasm.agent import Agent
from sentinel_wasm.errors import UserError
from sentinel_wasm.server import channel, handover
from sentinel_wasm.server.changes import Changes
from sentinel_wasm.server.giver import Giver
from sentinel_wasm.server.handover import Carried
from sentinel_wasm.server.reports import send_reports
from sentinel_wasm.server.run import started_agent
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.server.status import Status

_log = structlog.stdlib.get_logger("worker")


def serve(
    orders: socket.socket, reports_fd: int, start: channel.Start, give_up: Callable[[str], None]
) -> None:
    """Serve until the orders end. Raises UserError; `give_up` as for `started_agent`."""
    with started_agent(start.wanted, start.wasm, give_up=give_up, warns=_warns(start.worker)) as agent:
        uvloop.run(_serve(orders, reports_fd, start, agent))


def _warns(worker: int) -> bool:
    """The others have the same module."""
    return worker == 1


async def _serve(orders: socket.socket, reports_fd: int, start: channel.Start, agent: Agent) -> None:
    module = agent.module
    dealt = DealtConnections(orders, reports_fd, start, agent)
    await dealt.serving.listen_grpc(start.wanted.settings)
    _log.info(
        "ready",
        pid=os.getpid(),
        module=module.digest,
        hooks=module.hook_names,
        pool_size=start.wanted.settings.pool_size,
        from_cache=module.from_cache,
    )
    dealt.serving.set_debug(start.is_debug)
    reports = send_reports(dealt.serving, dealt.status, {"worker": str(start.worker)})
    reporting = asyncio.get_running_loop().create_task(reports)
    await dealt.take_all()
    reporting.cancel()
    await dealt.serving.drain()
    await dealt.changes.end()


class DealtConnections:
    """The connections of this worker. Made on the event loop that serves them."""

    def __init__(self, orders: socket.socket, reports_fd: int, start: channel.Start, agent: Agent) -> None:
        settings = start.wanted.settings
        self.serving = Serving(
            settings,
            agent,
            lost=lambda: self._report(channel.CLOSED),
        )
        self.serving.health_changed.append(lambda health: self._report(channel.HEALTH[health]))
        self.changes = Changes(self.serving, settings)
        self.status = Status(self.serving)
        self._warns = _warns(start.worker)
        self._orders = orders
        self._reports_fd = reports_fd
        self._unsaid = bytearray()
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        orders.setblocking(False)
        os.set_blocking(reports_fd, False)

    async def take_all(self) -> None:
        """Say that connections may come, and take them until the orders end."""
        self._loop.add_reader(self._orders, self._take)
        self._report(channel.READY)
        await self._ended.wait()
        self._loop.remove_reader(self._orders)
        await asyncio.gather(*self._opening)

    def _take(self) -> None:
        try:
            dealt = channel.receive_order(self._orders)
        except BlockingIOError:
            return
        except OSError as error:
            if isinstance(error, handover.Lost) and error.kind == channel.RELOAD:
                self._keep_old(str(error))
                return
            _log.error("a connection was lost", reason=error.strerror)
            self._report(channel.TAKEN + channel.CLOSED)
            return
        if dealt is None:
            self._ended.set()
            return
        if dealt is channel.ASKED:
            self._report(channel.long_report(channel.SAMPLES, self.status.samples()))
            return
        if isinstance(dealt, channel.Reload):
            self._start(self._reload(dealt))
            return
        if isinstance(dealt, channel.Debug):
            self.serving.set_debug(dealt is channel.Debug.ON)
            return
        if isinstance(dealt, channel.GiveAll):
            self._start(self._give_all(dealt.end))
            return
        if isinstance(dealt, channel.Look):
            about = {**self.status.about(), "config": self.serving.agent.config}
            self._report(channel.seen_report(channel.Seen(about, self.status.entries(dealt.since))))
            return
        # Before anything is read of it: the supervisor keeps it until now, for another worker.
        self._report(channel.TAKEN)
        self._start(self._open(dealt))

    def _start(self, doing: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(doing)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _reload(self, order: channel.Reload) -> None:
        try:
            wanted, checked = await asyncio.to_thread(channel.read_reload, order)
            try:
                await self.changes.adopt(wanted, checked, warns=self._warns)
            finally:
                os.close(checked.artefact)
        except (UserError, OSError) as error:
            self._keep_old(str(error))
        except Exception as defect:
            _log.error("internal error, please report it", exc_info=defect)
            self._keep_old(f"internal error: {type(defect).__name__}")
        else:
            self._report(channel.RELOADED)

    def _keep_old(self, reason: str) -> None:
        self._report(channel.long_report(channel.KEPT_OLD, reason))

    async def _open(self, dealt: Carried) -> None:
        try:
            await self.serving.adopt(dealt)
        except OSError as error:
            _log.error("a connection was lost", reason=error.strerror)
            self._report(channel.CLOSED)

    async def _give_all(self, end: socket.socket) -> None:
        # Those that were dealt before are to be open.
        await asyncio.gather(*(self._opening - {asyncio.current_task()}))
        with end:
            everything = await Giver(self.serving, end).give_all()
        self._report(channel.GIVEN if everything else channel.KEPT)

    def _report(self, what: bytes) -> None:
        self._unsaid += what
        self._say()

    def _say(self) -> None:
        """As much as the pipe takes, the rest when it takes more; nothing to a supervisor that is gone."""
        try:
            del self._unsaid[: os.write(self._reports_fd, self._unsaid)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsaid.clear()
        if self._unsaid:
            self._loop.add_writer(self._reports_fd, self._say)
        else:
            self._loop.remove_writer(self._reports_fd)
