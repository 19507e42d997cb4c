"""When a module and its settings are loaded anew, and what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import structlog

from sentinel_wasm.errors import UserError
from sentinel_wasm.guest import sections
from sentinel_wasm.guest.limits import MIB
from sentinel_wasm.metrics import Samples, series
from sentinel_wasm.server import systemd
from sentinel_wasm.server.compiling import Checked, check
from sentinel_wasm.server.watch import LOOK_S, Files
from sentinel_wasm.settings import Settings, Source, Wanted, options

_log = structlog.stdlib.get_logger("reload")

_FIXED = [option for option in options() if option.fixed]


class Reloads:
    """What is counted."""

    def __init__(self) -> None:
        self.ok = 0
        self.failed = 0
        self.last_success = 0.0  # of time.time

    def samples(self) -> Samples:
        return {
            series("reloads_total", result="ok"): self.ok,
            series("reloads_total", result="failed"): self.failed,
            series("reload_success_timestamp_seconds"): self.last_success,
        }


Apply = Callable[[Wanted, Checked], Awaitable[None]]


class Reloader:
    """Reloads when it is asked to: one at a time, and one more where it was asked meanwhile.

    The module's bytes are read once: what a child process has compiled and tried is what is applied.
    """

    def __init__(
        self,
        wanted: Wanted,
        source: Source,
        files: Files,
        sha256: str,
        apply: Apply,
        with_block: Callable[[Settings], Settings] = lambda settings: settings,
    ) -> None:
        """`wanted`, `files` and `sha256` (the module's) are of what runs. `apply` may raise UserError; then
        what runs is as before. `with_block` gives the settings that a module will have in the end.
        """
        self.reloads = Reloads()
        self._wanted = wanted
        self._source = source
        self._files = files
        self._sha256 = sha256
        self._apply = apply
        self._with_block = with_block
        self._asked = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reload at SIGHUP, and with --watch, meanwhile."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._asked.set)
        tasks = [loop.create_task(self._reload_when_asked())]
        if self._wanted.settings.watch:
            tasks.append(loop.create_task(self._watch()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            # A file system may be slow to answer.
            if not self._asked.is_set() and await asyncio.to_thread(self._files.have_changed):
                self._asked.set()

    async def _reload_when_asked(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            began = time.monotonic()
            systemd.reloading()
            try:
                what = await self._reload()
            except (UserError, OSError) as error:
                self.reloads.failed += 1
                _log.error("reload failed, the module and the settings stay as they were", reason=str(error))
            except Exception as defect:
                self.reloads.failed += 1
                _log.error("internal error, please report it", exc_info=defect)
            else:
                self.reloads.ok += 1
                self.reloads.last_success = time.time()
                took_s = round(time.monotonic() - began, 3)
                file, digest = self._wanted.settings.module, self._sha256[: sections.DIGEST_SHOWN]
                _log.info(what, file=str(file), module=digest, took_s=took_s)
            systemd.ready(f"listening, as process {os.getpid()}")

    async def _reload(self) -> str:
        """What was done. Raises UserError."""
        self._files.note(self._source.file)
        wanted = await asyncio.to_thread(self._source.read)
        settings = _as_fixed(wanted.settings, self._wanted.settings)
        wanted = wanted._replace(settings=settings)
        self._files.forget_all_but(self._source.file)
        self._files.note(settings.module)
        wasm, sha256 = await asyncio.to_thread(_read_module, settings)
        if wanted == self._wanted and sha256 == self._sha256:
            return "reloaded: nothing has changed"
        checked = await check(self._with_block(settings), wasm)
        try:
            await self._apply(wanted, checked)
        finally:
            os.close(checked.artefact)
        self._wanted, self._sha256 = wanted, sha256
        return "reloaded"


def _read_module(settings: Settings) -> tuple[bytes, str]:
    """Its bytes and their digest. Raises ModuleLoadError."""
    wasm = sections.read(settings.module, settings.max_module_size * MIB)
    return wasm, hashlib.sha256(wasm).hexdigest()


def _as_fixed(new: Settings, old: Settings) -> Settings:
    """The new settings, but for those that cannot change while the agent runs."""
    kept = {option.field: getattr(old, option.field) for option in _FIXED}
    changed = [option.name for option in _FIXED if getattr(new, option.field) != kept[option.field]]
    if changed:
        _log.warning("changed, but only a restart brings it into effect", options=changed)
    return replace(new, **kept)
