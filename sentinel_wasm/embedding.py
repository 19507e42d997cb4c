"""The agent in a program of yours, on its event loop.

    from sentinel_wasm import serve

    async with serve("filter.wasm", "/run/filter.sock", timeout_ms=30):
        ...

docs/toolkit.md says what is otherwise than in `sentinel-wasm-agent`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import uvloop

from sentinel_wasm.configuration import expected_of, is_good, shown
from sentinel_wasm.errors import UserError
from sentinel_wasm.guest import sections
from sentinel_wasm.guest.cache import Cache
from sentinel_wasm.guest.engine import Engine
from sentinel_wasm.guest.limits import MIB
from sentinel_wasm.guest.module import Module
from sentinel_wasm.server import admin, listener
from sentinel_wasm.server.changes import Changes, make_agent, warn
from sentinel_wasm.server.reports import send_reports
from sentinel_wasm.server.reverse import Reverse
from sentinel_wasm.server.run import Accepting
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.server.sockets import Sockets
from sentinel_wasm.server.status import Status
from sentinel_wasm.settings import Address, Option, Settings, Wanted, options, parse_address

_OVER_GRPC = ("grpc", "grpc_cert", "grpc_key", "grpc_client_ca")
_OF_THE_PROGRAM = ("module", "socket", "workers", "watch", "takeover", "log_format", *_OVER_GRPC)
_OPTIONS = {option.field: option for option in options() if option.field not in _OF_THE_PROGRAM}
_LOOK_S = 0.01


@contextlib.asynccontextmanager
async def serve(
    module: str | os.PathLike[str],
    socket: str | os.PathLike[str],
    config: Mapping[str, Any] | None = None,
    **chosen: Any,
) -> AsyncIterator[None]:
    """Answer proxies at a Unix socket while the block runs.

    `config` is given to the module's `on_configure`; `chosen` are options of `sentinel-wasm-agent`, named and
    written as in its configuration file, with underscores. At the block's end nobody is accepted any more,
    and what has come is answered; connections that are left after 5 s are closed.

    Raises UserError where the module, a socket, an option or the event loop cannot be used.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, uvloop.Loop):
        # With another, a late answer to a v1 proxy may pass for the next request's.
        raise UserError("serve wants uvloop as the event loop: uvloop.run(main())")
    settings = _settings(Path(module), Path(socket), config, chosen)

    def load(engine: Engine) -> Module:
        wasm = sections.read(settings.module, settings.max_module_size * MIB)
        return Module(engine, wasm, str(settings.module), Cache(settings.cache_dir), settings.sha256)

    agent = await make_agent(settings, [load])
    warn(Wanted(settings, "header_names" in chosen), agent.modules)
    serving = Serving(settings, agent, lost=lambda one: reverse.lost(one.proxy, one.lived_s))
    changes = Changes(serving, settings)
    try:
        reverse = Reverse(settings, serving.adopt, serving.reverse)
        status = Status(serving, reverse=reverse)
        with _sockets(settings) as sockets:
            accepting = Accepting(serving, status, sockets, reverse)
            await accepting.accept()
            accepting.connect()
            reporting = loop.create_task(send_reports(serving, status, {}))
            try:
                yield
            finally:
                reporting.cancel()
                status.is_draining = True
                accepting.accept_no_more()
    finally:
        await _end(serving)
        await changes.end()


def _settings(
    module: Path, socket: Path, config: Mapping[str, Any] | None, chosen: dict[str, Any]
) -> Settings:
    values = {}
    for name, value in chosen.items():
        option = _OPTIONS.get(name)
        if option is None:
            raise UserError(f"no option {name}; there are {', '.join(_OPTIONS)}")
        if not is_good(option, value):
            raise UserError(f"{name} is {shown(value)}, expected {expected_of(option)}")
        values[name] = _converted(option, value)
    given = None if config is None else orjson.dumps(config).decode()
    return Settings(module=module, socket=socket, module_config=given, **values)


def _converted(option: Option, value: Any) -> Any:
    """From what it is in a configuration file."""
    if option.kind is Path:
        return Path(value)
    if option.kind is tuple:
        return tuple(map(Path, value))
    return parse_address(value) if option.kind is Address else value


def _sockets(settings: Settings) -> Sockets:
    """Raises SocketError."""
    for_admin = None if settings.admin is None else admin.listen(settings.admin)
    try:
        agent = listener.listen(settings.socket, int(settings.socket_mode, 8), settings.socket_group)
    except BaseException:
        if for_admin is not None:
            for_admin.close()
        raise
    files = {str(settings.socket.absolute()): listener.identity(settings.socket)}
    return Sockets(agent, None, for_admin, files)


async def _end(serving: Serving) -> None:
    await serving.drain()
    for connection in list(serving.connections):
        connection.abort()
    while serving.agent.pending:  # each has a deadline
        await asyncio.sleep(_LOOK_S)
