"""Modules compiled and tried in a child process: nothing can interrupt wasmtime's compiler."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from sentinel_wasm import logs
from sentinel_wasm.errors import ModuleLoadError
from sentinel_wasm.guest.limits import MIB
from sentinel_wasm.server import child
from sentinel_wasm.server.nameless import nameless, seal
from sentinel_wasm.settings import Settings

_COMPILER_BYTES = 2 << 30


class Checked(NamedTuple):
    """A module that was compiled and could be started.

    `artefact` is a file without a name, for `guest.artefact`.
    """

    wasm: bytes
    artefact: int
    from_cache: bool


class _Question(NamedTuple):
    settings: Settings
    wasm: bytes
    artefact: int


@contextlib.asynccontextmanager
async def checked(settings: Settings, modules: Sequence[bytes]) -> AsyncIterator[list[Checked]]:
    """Compile each module, keep it for the next start, and start an instance with its settings.

    Raises ModuleLoadError.
    """
    good: list[Checked] = []
    try:
        for each, wasm in zip(settings.each, modules, strict=True):
            good.append(await _check(each, wasm))
        yield good
    finally:
        for one in good:
            os.close(one.artefact)


async def _check(settings: Settings, wasm: bytes) -> Checked:
    """Who has it closes its artefact."""
    artefact = nameless("artefact")
    try:
        question = _Question(settings, wasm, artefact)
        from_cache = await child.ask(f"{__name__}:compile_and_try", question, [artefact])
        seal(artefact)
    except child.ChildError as error:
        os.close(artefact)
        raise ModuleLoadError(f"{settings.module}: cannot be compiled: {error}") from None
    except BaseException:
        os.close(artefact)
        raise
    return Checked(wasm, artefact, from_cache)


def compile_and_try(question: _Question) -> bool:
    """In the child; whether it had been compiled before. Raises ModuleLoadError."""
    # Loads wasmtime: not for a supervisor.
    from sentinel_wasm.agent import Agent
    from sentinel_wasm.guest.cache import Cache
    from sentinel_wasm.guest.engine import engine_for
    from sentinel_wasm.guest.module import Module

    settings = replace(question.settings, pool_size=1)
    logs.configure(settings.log_format, process="child")
    child.limit(resource.RLIMIT_DATA, _COMPILER_BYTES + settings.memory_limit * MIB)
    module = Module(
        engine_for(settings), question.wasm, str(settings.module), Cache(settings.cache_dir), settings.sha256
    )
    with os.fdopen(question.artefact, "wb") as file:
        file.write(module.compiled.serialize())
    Agent(settings, module).close()
    return module.from_cache
