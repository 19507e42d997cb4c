"""The agent's life in one process: start, serve, drain on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog
import uvloop

from sentinel_wasm import __version__, logs
from sentinel_wasm._instances import live_stores
from sentinel_wasm._workers import live_threads
from sentinel_wasm.answering import Answering
from sentinel_wasm.chain import agent_for
from sentinel_wasm.errors import UserError
from sentinel_wasm.grpc.check import check
from sentinel_wasm.guest.cache import Cache
from sentinel_wasm.guest.engine import engine_for
from sentinel_wasm.guest.module import Module
from sentinel_wasm.protocol.events import Configure
from sentinel_wasm.server import admin, systemd, upgrade
from sentinel_wasm.server.changes import Changes, warn
from sentinel_wasm.server.giver import Giver
from sentinel_wasm.server.reload import Reloader, read_modules
from sentinel_wasm.server.reports import send_reports
from sentinel_wasm.server.reverse import Reverse
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.server.sockets import Sockets, open_sockets
from sentinel_wasm.server.status import Status
from sentinel_wasm.server.store import Store
from sentinel_wasm.server.watch import Files
from sentinel_wasm.settings import Source, Wanted

_log = structlog.stdlib.get_logger("server")

_COMPILE_S = 10


def run(wanted: Wanted, source: Source) -> None:
    """Serve until SIGTERM or SIGINT; `source` is where `wanted` came from. Raises UserError where the module
    or the socket cannot be used.
    """
    # They may come before anything listens to them, and would end the process.
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    settings = wanted.settings
    check(settings)
    files = Files(source.file, *(each.module for each in settings.each))
    modules = read_modules(settings)
    with started_agent(wanted, modules, give_up=_complain) as agent:
        uvloop.run(_serve(wanted, source, files, modules, agent))


@contextlib.contextmanager
def started_agent(
    wanted: Wanted, wasm: Sequence[bytes], *, give_up: Callable[[str], None], warns: bool = True
) -> Iterator[Answering]:
    """The modules with their instances, closed at the end. Raises UserError.

    `give_up` says in another thread why the process is about to end. `warns`: the log says what about the
    modules seems wrong.
    """
    settings, modules = wanted.settings, []
    for each, read in zip(settings.each, wasm, strict=True):
        with _compile_limit(each.module, give_up):
            engine = engine_for(each)
            modules.append(Module(engine, read, str(each.module), Cache(each.cache_dir), each.sha256))
    if warns:
        warn(wanted, modules)
    settle()
    agent = agent_for(settings, modules)
    try:
        yield agent
    finally:
        agent.close()
    _log.info("stopped", threads=live_threads(), instances=live_stores())


@contextlib.contextmanager
def _compile_limit(path: Path, give_up: Callable[[str], None]) -> Iterator[None]:
    """Ends the process where compiling takes too long: nothing can interrupt wasmtime's compiler."""

    def end() -> None:
        give_up(f"{path}: compiling it took more than {_COMPILE_S} s")
        os._exit(1)

    timer = threading.Timer(_COMPILE_S, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _complain(reason: str) -> None:
    sys.stderr.write(f"sentinel-wasm-agent: {reason}\n")
    sys.stderr.flush()


async def _serve(
    wanted: Wanted, source: Source, files: Files, modules: Sequence[bytes], agent: Answering
) -> None:
    settings = wanted.settings
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = Serving(settings, agent, lost=lambda one: reverse.lost(one.proxy, one.lived_s), store=Store())
    reverse = Reverse(settings, serving.adopt, serving.reverse)
    loop.add_signal_handler(signal.SIGUSR1, lambda: serving.set_debug(not logs.is_debug()))
    changes = Changes(serving, settings)
    reloader = Reloader(wanted, source, files, modules, changes.adopt, changes.with_block)
    status = Status(serving, reloader.reloads, reverse)
    before = upgrade.ask(settings) if settings.takeover else None
    if before is not None:
        await _configure(agent, before.configured)
    reporting = loop.create_task(send_reports(serving, status, {}))
    with before.sockets if before is not None else open_sockets(settings) as sockets:
        accepting = Accepting(serving, status, sockets, reverse)
        await accepting.accept()
        await serving.listen_grpc(settings)
        _log.info(
            "listening",
            socket=str(settings.socket),
            **described(agent),
            version=__version__,
        )
        next_process = upgrade.Upgrade(settings, sockets, accepting, stop.set)
        for carried in sockets.kept:
            with contextlib.suppress(OSError):  # the proxy is gone
                await serving.adopt(carried)
        upgrading = loop.create_task(next_process.run(before, serving.adopt))
        async with reloader.running():
            await stop.wait()
        upgrading.cancel()
        status.is_draining = True
        reporting.cancel()
        await accepting.end()
    await changes.end()


class Accepting:
    """A process's connections, as they come from proxies and from the process before it."""

    def __init__(self, serving: Serving, status: Status, sockets: Sockets, reverse: Reverse) -> None:
        self._serving = serving
        self._status = status
        self._sockets = sockets
        self._reverse = reverse

    @property
    def configured(self) -> Configure | None:
        return self._serving.agent.configured

    async def accept(self) -> None:
        sock = self._sockets.agent.dup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._serving.connection, sock=sock)
        self._admin = await admin.start(self._sockets.admin, self._status)

    def connect(self) -> None:
        self._reverse.start()

    def accept_no_more(self) -> None:
        self._server.close()
        self._reverse.stop()
        if self._admin is not None:
            self._admin.close()

    async def give_all(self, end: socket.socket) -> bool:
        return await Giver(self._serving, end).give_all()

    async def end(self) -> None:
        """Answer what has come."""
        self._server.close()
        self._reverse.stop()
        if not self._sockets.are_shared:
            systemd.stopping("answering what has come")
            await self._serving.keep_all()
        await self._serving.drain()
        self.accept_no_more()


async def _configure(agent: Answering, configured: Configure | None) -> None:
    """As the process before this one was. Raises UserError where the module refuses it."""
    if configured is None:
        return
    error = await agent.configure(configured)
    if error is not None:
        raise UserError(f"the module refuses the configuration that the proxy has sent: {error}")


def described(agent: Answering) -> dict[str, Any]:
    """What it asks, for a line of the log."""
    if agent.settings.chain:
        return {"modules": [f"{link.name} {link.module.digest}" for link in agent.links]}
    (module,) = agent.modules
    return {
        "file": module.name,
        "module": module.digest,
        "hooks": module.hook_names,
        "pool_size": agent.settings.pool_size,
        "from_cache": module.from_cache,
    }


def settle() -> None:
    """What was made so far stays for good: the collector need not look at it again. An agent may go.

    Nor does it look now: a start leaves some 200 objects to collect, and finding them is a twentieth of it.
    """
    gc.freeze()
