"""A worker's serving: connections come from the supervisor, and it is told when they close."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine

import structlog
import uvloop

from sentinel_wasm.answering import Answering
from sentinel_wasm.errors import UserError
from sentinel_wasm.server import channel, handover
from sentinel_wasm.server.changes import Changes
from sentinel_wasm.server.connection import Connection
from sentinel_wasm.server.giver import Giver
from sentinel_wasm.server.handover import Carried
from sentinel_wasm.server.reports import send_reports
from sentinel_wasm.server.run import described, started_agent
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.server.status import Status

_log = structlog.stdlib.get_logger("worker")


def serve(
    orders: socket.socket, reports_fd: int, start: channel.Start, give_up: Callable[[str], None]
) -> None:
    """Serve until the orders end. Raises UserError; `give_up` as for `started_agent`."""
    with started_agent(start.wanted, start.modules, give_up=give_up, warns=_warns(start.worker)) as agent:
        uvloop.run(_serve(orders, reports_fd, start, agent))


def _warns(worker: int) -> bool:
    """The others have the same module."""
    return worker == 1


async def _serve(orders: socket.socket, reports_fd: int, start: channel.Start, agent: Answering) -> None:
    dealt = DealtConnections(orders, reports_fd, start, agent)
    await dealt.serving.listen_grpc(start.wanted.settings)
    _log.info("ready", pid=os.getpid(), **described(agent))
    dealt.serving.set_debug(start.is_debug)
    reports = send_reports(dealt.serving, dealt.status, {"worker": str(start.worker)})
    reporting = asyncio.get_running_loop().create_task(reports)
    await dealt.take_all()
    reporting.cancel()
    await dealt.serving.drain()
    await dealt.changes.end()


class DealtConnections:
    """The connections of this worker. Made on the event loop that serves them."""

    def __init__(
        self, orders: socket.socket, reports_fd: int, start: channel.Start, agent: Answering
    ) -> None:
        settings = start.wanted.settings
        self.serving = Serving(
            settings,
            agent,
            lost=self._lost,
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
        except handover.Lost as lost:
            self._had_no_room(lost)
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
            about = {**self.status.about(), "configs": self.status.configs()}
            self._report(channel.seen_report(channel.Seen(about, self.status.entries(dealt.since))))
            return
        # Before anything is read of it: the supervisor keeps it until now, for another worker.
        self._report(channel.TAKEN)
        self._start(self._open(dealt))

    def _had_no_room(self, lost: handover.Lost) -> None:
        """For an order's descriptors. What the page asks for has none that matter: it asks again."""
        if lost.kind == handover.CONNECTION:
            _log.error("a connection was lost", reason=lost.strerror)
            self._report(channel.DROPPED)
        elif lost.kind == handover.GIVER:
            _log.error("connections stay here, and are drained", reason=lost.strerror)
            self._report(channel.GIVEN)
        elif lost.kind == channel.RELOAD:
            self._keep_old(str(lost))

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
                for one in checked:
                    os.close(one.artefact)
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
            self._closed(dealt.state.proxy, 0)

    async def _give_all(self, end: socket.socket) -> None:
        # Those that were dealt before are to be open.
        await asyncio.gather(*(self._opening - {asyncio.current_task()}))
        before = self.serving.reverse()
        with end:
            everything = await Giver(self.serving, end).give_all()
        if not everything:
            for proxy in (before - self.serving.reverse()).elements():  # with the process that had them
                self._report(channel.long_report(channel.LOST, (proxy, 0)))
        self._report(channel.GIVEN if everything else channel.KEPT)

    def _lost(self, connection: Connection) -> None:
        self._closed("" if connection.is_leaving else connection.proxy, connection.lived_s)

    def _closed(self, proxy: str, lived_s: float) -> None:
        """`proxy`: of --connect, where the connection is to be opened again."""
        self._report(channel.CLOSED + (channel.long_report(channel.LOST, (proxy, lived_s)) if proxy else b""))

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
