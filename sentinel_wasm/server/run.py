"""The agent's life in one process: start, serve, drain on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import structlog
import uvloop

from sentinel_wasm import __version__, logs
from sentinel_wasm._instances import live_stores
from sentinel_wasm._workers import live_threads
from sentinel_wasm.agent import Agent
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.cache import Cache
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.limits import MIB
from sentinel_wasm.guest.module import Module
from sentinel_wasm.server import admin, listener
from sentinel_wasm.server.reports import send_reports
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.server.status import Status
from sentinel_wasm.settings import Settings

_log = structlog.stdlib.get_logger("server")

_COMPILE_S = 10


def run(settings: Settings, *, header_names_given: bool) -> None:
    """Serve until SIGTERM or SIGINT. Raises UserError where the module or the socket cannot be used.

    `header_names_given`: the user chose --header-names, so there is no warning about lower-case names.
    """
    # It may come before anything listens to it, and would end the process.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with started_agent(settings, header_names_given=header_names_given, give_up=_complain) as (agent, module):
        uvloop.run(_serve(settings, agent, module))


@contextlib.contextmanager
def started_agent(
    settings: Settings, *, header_names_given: bool, give_up: Callable[[str], None], warns: bool = True
) -> Iterator[tuple[Agent, Module]]:
    """The module with its instances, closed at the end. Raises UserError.

    `give_up` says in another thread why the process is about to end. `warns`: the log says what about the
    module seems wrong.
    """
    with _compile_limit(settings.module, give_up):
        engine = make_engine(_instances(settings), settings.memory_limit * MIB)
        module = Module.load(
            engine, settings.module, settings.max_module_size * MIB, Cache(settings.cache_dir)
        )
    if warns:
        _warn(settings, module, header_names_given=header_names_given)
    agent = Agent(settings, module)
    try:
        yield agent, module
    finally:
        agent.close()
    _log.info("stopped", threads=live_threads(), instances=live_stores())


def _warn(settings: Settings, module: Module, *, header_names_given: bool) -> None:
    if module.looks_up_lower_case and not header_names_given:
        _log.warning(
            "the module seems to look up header names in lower case, but gets them as User-Agent;"
            " start with --header-names lower if its rules do not match",
            file=str(settings.module),
            module=module.digest,
        )
    if settings.module_config is not None and not module.hooks[abi.ON_CONFIGURE]:
        _log.warning(
            "the module has no on_configure: [module.config] is not looked at",
            file=str(settings.module),
            module=module.digest,
        )


def _instances(settings: Settings) -> int:
    """How many there can be at once: a second pool for reloads, and a few that are ending."""
    own = settings.request_instances if settings.isolation == "request" else 0
    return 2 * settings.pool_size + own + 8


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


async def _serve(settings: Settings, agent: Agent, module: Module) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = Serving(settings, agent)
    loop.add_signal_handler(signal.SIGUSR1, lambda: serving.set_debug(not logs.is_debug()))
    status = Status(settings, serving)
    agent.attach(loop, serving.tell_health)
    reporting = loop.create_task(send_reports(serving, status, {}))
    async with admin.serving(settings.admin, status), _accepting(settings, serving):
        settle()
        _log.info(
            "listening",
            socket=str(settings.socket),
            file=str(settings.module),
            module=module.digest,
            hooks=hook_names(module),
            pool_size=settings.pool_size,
            from_cache=module.from_cache,
            version=__version__,
        )
        await stop.wait()
        status.is_draining = True
        reporting.cancel()


@contextlib.asynccontextmanager
async def _accepting(settings: Settings, serving: Serving) -> AsyncIterator[None]:
    """Accept connections at the socket meanwhile; afterwards drain them. Raises SocketError."""
    sock = listener.listen(settings.socket)
    ours = listener.identity(settings.socket)
    try:
        server = await asyncio.get_running_loop().create_unix_server(serving.connection, sock=sock)
        yield
        server.close()
        await serving.drain()
    finally:
        listener.unlink(settings.socket, ours)


def settle() -> None:
    """What was made so far stays for good: the collector need not look at it again."""
    gc.collect()
    gc.freeze()


def hook_names(module: Module) -> list[str]:
    return [name for name, there in zip(abi.HOOKS, module.hooks, strict=True) if there]
