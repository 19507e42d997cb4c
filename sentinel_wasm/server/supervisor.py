"""The parent of --workers: accepts connections, deals them to workers, replaces workers that die.

It has no engine and reads nothing of a connection. Workers are started by exec: a forked child of a process
with an engine hangs when it compiles.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import structlog

from sentinel_wasm import __version__, logs, metrics
from sentinel_wasm.errors import UserError
from sentinel_wasm.grpc.check import check
from sentinel_wasm.metrics import Samples
from sentinel_wasm.server import admin, channel, events, handover, systemd, upgrade, usage
from sentinel_wasm.server.compiling import Checked
from sentinel_wasm.server.facts import facts
from sentinel_wasm.server.handover import Carried
from sentinel_wasm.server.process import Process
from sentinel_wasm.server.reload import Reloader, Reloads, read_modules
from sentinel_wasm.server.reverse import LONG_S, Reverse
from sentinel_wasm.server.sockets import Sockets, open_sockets
from sentinel_wasm.server.trial import Loaded, loaded
from sentinel_wasm.server.watch import Files
from sentinel_wasm.settings import Settings, Source, Wanted

_log = structlog.stdlib.get_logger("supervisor")

_END_S = 8.0  # workers drain for 5 s at most
_SOON_S = 20.0  # what dies again so soon after it was to start waits longer each time
_PAUSE_S, _PAUSE_MOST_S = 1.0, 30.0


def run(wanted: Wanted, source: Source) -> None:
    """Serve until SIGTERM or SIGINT; `source` is where `wanted` came from. Raises UserError where a worker or
    the socket cannot be made.
    """
    # They may come before anything listens to them, and would end the process.
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    # Not uvloop: a few connections a second need none.
    asyncio.run(_supervise(wanted, source))
    _log.info("stopped")


async def _supervise(wanted: Wanted, source: Source) -> None:
    settings = wanted.settings
    check(settings)
    files = Files(source.file, *(each.module for each in settings.each))
    modules = read_modules(settings)
    supervisor = Supervisor(wanted, modules)
    reloader = Reloader(wanted, source, files, modules, supervisor.reload)
    supervisor.reloads = reloader.reloads
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, supervisor.toggle_debug)
    try:
        if await supervisor.start():
            async with reloader.running():
                await _listen(settings, supervisor)
    finally:
        await supervisor.end()


async def _listen(settings: Settings, supervisor: Supervisor) -> None:
    before = upgrade.ask(settings) if settings.takeover else None
    with before.sockets if before is not None else open_sockets(settings) as sockets:
        accepting = Accepting(supervisor, sockets)
        await accepting.accept()
        _log.info(
            "listening",
            socket=str(settings.socket),
            **_files(settings),
            workers=settings.workers,
            version=__version__,
        )
        next_process = upgrade.Upgrade(settings, sockets, accepting, supervisor.stop)
        for carried in sockets.kept:
            await supervisor.adopt(carried)
        upgrading = asyncio.create_task(next_process.run(before, supervisor.adopt))
        await supervisor.stopped.wait()
        upgrading.cancel()
        if not sockets.are_shared:
            systemd.stopping("answering what has come")
        _log.info("stopping")
        accepting.accept_no_more()


def _files(settings: Settings) -> dict[str, Any]:
    """For a line of the log."""
    if settings.chain:
        return {"modules": [linked.name for linked in settings.chain]}
    return {"file": str(settings.module), "pool_size": settings.pool_size}


class Accepting:
    """A supervisor's connections, as they come from proxies and go to the next process."""

    configured = None  # each worker has its own

    def __init__(self, supervisor: Supervisor, sockets: Sockets) -> None:
        self._supervisor = supervisor
        self._sockets = sockets

    async def accept(self) -> None:
        self._supervisor.accept_from(self._sockets.agent)
        self._admin = await admin.start(self._sockets.admin, self._supervisor)

    def accept_no_more(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sockets.agent)
        self._supervisor.reverse.stop()
        if self._admin is not None:
            self._admin.close()

    def connect(self) -> None:
        self._supervisor.reverse.start()

    async def give_all(self, end: socket.socket) -> bool:
        return await self._supervisor.give_all(end)


class Supervisor:
    """The workers, and the connections that none of them has. Made on the event loop that runs it.

    `reloads` are those of who calls `reload`; to be set before anything is asked of the admin endpoint.
    """

    reloads: Reloads

    def __init__(self, wanted: Wanted, modules: list[bytes]) -> None:
        self.stopped = asyncio.Event()
        self._settings = wanted.settings
        self._wanted, self._modules = wanted, modules  # what workers start with
        self._loop = asyncio.get_running_loop()
        self._workers: dict[int, Process] = {}
        self._held: list[Carried] = []
        # By worker: when it was to start again, and after how long.
        self._pauses: dict[int, tuple[float, float]] = {}
        self._all_ready: asyncio.Future[None] = self._loop.create_future()
        self._is_ending = False
        # What workers that have ended had counted, as far as they reported it.
        self._ended: Samples = {}
        self._died = 0
        self._events = events.Merged()
        self.reverse = Reverse(self._settings, self.adopt, self._live_reverse)

    async def start(self) -> bool:
        """Start the workers; False where a signal came first. Raises UserError where one cannot start."""
        for number in range(1, self._settings.workers + 1):
            self._start(number)
        await self._all_ready
        return not self.stopped.is_set()

    def stop(self) -> None:
        self.stopped.set()
        if not self._all_ready.done():
            self._all_ready.set_result(None)

    def toggle_debug(self) -> None:
        logs.set_debug(not logs.is_debug())
        for worker in self._workers.values():
            if not worker.set_debug(logs.is_debug()):
                _log.warning("a worker was not told of debug logging", worker=worker.number, pid=worker.pid)

    async def end(self) -> None:
        """Workers answer what they have and end; one that does not is killed."""
        self._is_ending = True
        for dealt in self._held:
            dealt.sock.close()
        for worker in self._workers.values():
            worker.end()
        end = self._loop.time() + _END_S
        while self._workers and self._loop.time() < end:
            await asyncio.sleep(0.01)
        for worker in self._workers.values():
            _log.error("worker does not end: killed", worker=worker.number, pid=worker.pid)
            worker.kill()

    async def reload(self, wanted: Wanted, checked: list[Checked]) -> None:
        """All workers at once, and those that start later. Raises UserError where one keeps what it has."""
        old = self._wanted, self._modules
        self._wanted, self._modules = wanted, [one.wasm for one in checked]
        workers = list(self._workers.values())
        reasons = await asyncio.gather(*(worker.reload(wanted, checked) for worker in workers))
        failed = [
            f"worker {worker.number}: {reason}"
            for worker, reason in zip(workers, reasons, strict=True)
            if reason
        ]
        if failed and len(failed) == len(workers):
            self._wanted, self._modules = old
        if failed:
            raise UserError(
                f"{len(failed)} of {len(workers)} workers keep what they have: " + "; ".join(failed)
            )

    # What the admin endpoint says

    async def metrics(self) -> bytes:
        return metrics.text(await self._samples())

    async def _samples(self) -> Samples:
        """All workers' together: counters never go down, whichever of them end."""
        await asyncio.gather(*(worker.ask() for worker in self._ready))
        counted = [self._ended, *(worker.samples for worker in self._workers.values()), usage.samples()]
        of_workers = metrics.workers(self._settings.workers, alive=len(self._ready), died=self._died)
        own = {**self.reloads.samples(), **self.reverse.samples(), **usage.start()}
        return {**metrics.total(counted), **of_workers, **own}

    async def status(self) -> dict[str, Any]:
        samples, _ = await asyncio.gather(self._samples(), self._look())
        modules = [module for worker in self._seen for module in worker.about["modules"]]
        errors = [error for worker in self._seen for error in worker.about["errors"].items()]
        return {
            **facts(),
            "modules": list({(module["name"], module["sha256"]): module for module in modules}.values()),
            # Of each kind the last one.
            "errors": dict(sorted(errors, key=lambda error: float(error[1]["time"]))),
            "workers": [
                {
                    "worker": worker.number,
                    "pid": worker.pid,
                    "ready": worker.is_ready,
                    "health": worker.health,
                    "connections": worker.connections,
                }
                for worker in sorted(self._workers.values(), key=attrgetter("number"))
            ],
            "metrics": samples,
        }

    async def events(self, since: int) -> bytes:
        await self._look()
        return events.page(self._events.since(since), since)

    async def loaded(self) -> Loaded | None:
        await self._look()
        for about in (worker.about for worker in self._seen):
            return loaded(self._wanted.settings, about["modules"], about["configs"])
        return None

    async def _look(self) -> None:
        """Have all workers say what the page shows of them, and take in their events."""
        await asyncio.gather(*(worker.look() for worker in self._ready))
        found: list[events.Event] = []
        for worker in list(self._workers.values()):
            for event in await events.read_all(worker.take_entries()):
                found.append({**event, "worker": worker.number})
        self._events.add(found)

    @property
    def _ready(self) -> list[Process]:
        return [worker for worker in self._workers.values() if worker.is_ready]

    @property
    def _seen(self) -> list[Process]:
        return [worker for worker in self._workers.values() if worker.about]

    def why_not_ready(self) -> str | None:
        """As long as one worker's module is healthy, the agent is ready."""
        if self._is_ending:
            return "the agent is stopping"
        ready = self._ready
        if not ready:
            return "no worker is ready"
        health = {worker.health for worker in ready}
        if "healthy" in health:
            return None
        if health == {"unhealthy"}:
            return "the module keeps failing, and events are answered without it"
        return "the module keeps failing"

    # Connections

    def accept_from(self, sock: socket.socket) -> None:
        if not self._is_ending:
            self._loop.add_reader(sock, self._accept, sock)

    def _accept(self, sock: socket.socket) -> None:
        try:
            connection, _ = sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            _log.error("no connection is accepted for a second", reason=error.strerror)
            self._loop.remove_reader(sock)
            self._loop.call_later(1, self.accept_from, sock)
            return
        self._deal([handover.accepted(connection)])

    async def adopt(self, carried: Carried) -> None:
        """A connection of the process before."""
        self._deal([carried])

    async def give_all(self, end: socket.socket) -> bool:
        """As `giver.Giver.give_all`, but over a socket for each worker, to whose other end this one leads."""
        giving = []
        for worker in self._ready:
            ours, theirs = socket.socketpair()
            with theirs:
                handover.send(end, handover.GIVER, {}, theirs.fileno())
            giving.append(self._loop.create_task(worker.give_all(ours)))
        for carried in self._held:
            handover.send_connection(end, carried)
        return all(await asyncio.gather(*giving))

    def _live_reverse(self) -> Counter[str]:
        held = Counter(carried.state.proxy for carried in self._held if carried.state.proxy)
        return sum((worker.reverse for worker in self._workers.values()), held)

    def _deal(self, connections: Iterable[Carried]) -> None:
        """Each to the worker that has the fewest; those that no worker takes wait for one."""
        for dealt in connections:
            by_load = sorted(self._ready, key=lambda worker: worker.connections)
            if not any(worker.deal(dealt) for worker in by_load):
                self._held.append(dealt)

    # Workers

    def _start(self, number: int) -> None:
        if self._is_ending:
            return
        try:
            worker = Process(channel.Start(number, self._wanted, self._modules, logs.is_debug()))
        except OSError as error:
            self._replace(number, f"no process can be made: {error.strerror}")
            return
        self._workers[number] = worker
        self._loop.add_reader(worker.reports, self._hear, worker)

    def _hear(self, worker: Process) -> None:
        waiting, self._held = self._held, []
        if not worker.hear():
            waiting += worker.untaken
            self._bury(worker)
        elif not self._all_ready.done() and all(worker.is_ready for worker in self._workers.values()):
            self._all_ready.set_result(None)
        self._deal(waiting)
        for proxy, lived_s in worker.take_lost():
            self.reverse.lost(proxy, lived_s)

    def _bury(self, worker: Process) -> None:
        self._loop.remove_reader(worker.reports)
        del self._workers[worker.number]
        reason = worker.bury()
        untaken = Counter(carried.state.proxy for carried in worker.untaken)
        for proxy in (worker.reverse - untaken).elements():
            self.reverse.lost(proxy, LONG_S)  # which is not the proxy's doing
        self._ended = metrics.total([self._ended, metrics.lasting(worker.samples)])
        if not self._is_ending:
            self._replace(worker.number, reason, connections=worker.connections - len(worker.untaken))

    def _replace(self, number: int, reason: str, *, connections: int = 0) -> None:
        """Start another one; but the agent ends where they have not all been ready yet."""
        if not self._all_ready.done():
            self._is_ending = True
            self._all_ready.set_exception(UserError(reason))
            return
        self._died += 1
        pause_s = self._pause_s(number)
        _log.error(
            "worker died", worker=number, reason=reason, connections_lost=connections, next_in_s=pause_s
        )
        self._loop.call_later(pause_s, self._start, number)

    def _pause_s(self, number: int) -> float:
        """None the first time, then doubling."""
        now = self._loop.time()
        last, pause_s = self._pauses.get(number, (-_SOON_S, 0.0))
        again = now - last < _SOON_S
        pause_s = min(max(2 * pause_s, _PAUSE_S), _PAUSE_MOST_S) if again else 0.0
        self._pauses[number] = now + pause_s, pause_s
        return pause_s
