"""When a module and its settings are loaded anew, and what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import structlog

from sentinel_wasm.errors import UserError
from sentinel_wasm.guest import sections
from sentinel_wasm.guest.limits import MIB
from sentinel_wasm.metrics import Samples, series
from sentinel_wasm.server import systemd
from sentinel_wasm.server.compiling import Checked, checked
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


Apply = Callable[[Wanted, list[Checked]], Awaitable[None]]
"""Has the modules answer; their artefacts are closed then."""


class Reloader:
    """Reloads when it is asked to: one at a time, and one more where it was asked meanwhile.

    A module's bytes are read once: what a child process has compiled and tried is what is applied.
    """

    def __init__(
        self,
        wanted: Wanted,
        source: Source,
        files: Files,
        modules: Sequence[bytes],
        apply: Apply,
        with_block: Callable[[Settings], Settings] = lambda settings: settings,
    ) -> None:
        """`wanted`, `files` and `modules` (as they were read) are of what runs. `apply` may raise UserError;
        then what runs is as before. `with_block` gives the settings that modules will have in the end.
        """
        self.reloads = Reloads()
        self._wanted = wanted
        self._source = source
        self._files = files
        self._digests = _digests(modules)
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
                _log.info(what, **self._what_runs(), took_s=took_s)
            systemd.ready(f"listening, as process {os.getpid()}")

    async def _reload(self) -> str:
        """What was done. Raises UserError."""
        self._files.note(self._source.file)
        wanted = await asyncio.to_thread(self._source.read)
        settings = _as_fixed(wanted.settings, self._wanted.settings)
        wanted = wanted._replace(settings=settings)
        self._files.forget_all_but(self._source.file)
        for each in settings.each:
            self._files.note(each.module)
        modules = await asyncio.to_thread(read_modules, settings)
        digests = _digests(modules)
        if wanted == self._wanted and digests == self._digests:
            return "reloaded: nothing has changed"
        async with checked(self._with_block(settings), modules) as good:
            await self._apply(wanted, good)
        self._wanted, self._digests = wanted, digests
        return "reloaded"

    def _what_runs(self) -> dict[str, Any]:
        """For a line of the log."""
        if chain := self._wanted.settings.chain:
            shown = zip(chain, self._digests, strict=True)
            return {"modules": [f"{linked.name} {digest}" for linked, digest in shown]}
        return {"file": str(self._wanted.settings.module), "module": self._digests[0]}


def read_modules(settings: Settings) -> list[bytes]:
    """Their bytes, as they are now. Raises ModuleLoadError."""
    return [sections.read(each.module, each.max_module_size * MIB) for each in settings.each]


def _digests(modules: Sequence[bytes]) -> list[str]:
    return [hashlib.sha256(wasm).hexdigest()[: sections.DIGEST_SHOWN] for wasm in modules]


def _as_fixed(new: Settings, old: Settings) -> Settings:
    """The new settings, but for those that cannot change while the agent runs."""
    kept = {option.field: getattr(old, option.field) for option in _FIXED}
    changed = [option.name for option in _FIXED if getattr(new, option.field) != kept[option.field]]
    if changed:
        _log.warning("changed, but only a restart brings it into effect", options=changed)
    return new.for_all(**kept)
