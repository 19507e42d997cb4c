"""Exchanges of an agent in this process, where two can be had at one moment."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

from sentinel_wasm._instances import live_stores
from sentinel_wasm._workers import live_threads
from sentinel_wasm.agent import Agent
from sentinel_wasm.errors import ModuleError
from sentinel_wasm.guest.cache import NO_CACHE
from sentinel_wasm.guest.engine import engine_for
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.pool import LATER
from sentinel_wasm.protocol.events import Configure
from sentinel_wasm.server.changes import Changes
from sentinel_wasm.server.compiling import Checked
from sentinel_wasm.server.nameless import nameless
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.settings import Settings, Wanted

from .reloading import FIRST, SECOND

pytestmark = pytest.mark.parallel

SETTINGS = Settings(module=Path("filter.wasm"), timeout_ms=10_000)
WANTED = Wanted(SETTINGS, header_names_given=True)
NS = 1_000_000_000


def make(wasm: bytes) -> Agent:
    return Agent(SETTINGS, Module(engine_for(SETTINGS), wasm, "filter.wasm"))


@contextmanager
def checked(wasm: bytes) -> Iterator[list[Checked]]:
    """As the child makes it."""
    code = NO_CACHE.module(engine_for(SETTINGS), wasm)[0].serialize()
    with os.fdopen(nameless("artefact"), "wb") as file:
        file.write(code)
        file.flush()
        yield [Checked(wasm, file.fileno(), False)]


async def configured(changes: Changes, config: object) -> ModuleError | None:
    answer: asyncio.Future[ModuleError | None] = asyncio.get_running_loop().create_future()
    outcome = changes.configure(Configure("c", config), time.monotonic_ns() + 10 * NS, answer.set_result)
    if outcome is LATER:
        return await answer
    return outcome


_others = [0, 0]


@pytest.fixture(autouse=True)
def _count_others() -> None:
    """Tests of other files may have left instances and threads in this process."""
    gc.collect()
    _others[:] = live_stores(), live_threads()


def live() -> tuple[int, int]:
    """Instances and threads of this test."""
    return live_stores() - _others[0], live_threads() - _others[1]


async def settled(instances: int) -> None:
    """Agents that were exchanged are freed, with their threads and instances."""
    end = time.monotonic() + 10
    while live() != (instances, instances):
        assert time.monotonic() < end, live()
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("lead_ms", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("reload_first", [True, False])
def test_a_reload_and_a_configuration_at_once_both_hold(lead_ms: int, reload_first: bool) -> None:
    async def run() -> None:
        serving = Serving(SETTINGS, make(FIRST))
        changes = Changes(serving, SETTINGS)
        with checked(SECOND) as new:
            reload, configure = changes.adopt(WANTED, new), configured(changes, {"pool-size": 2, "a": 1})
            first, second = (reload, configure) if reload_first else (configure, reload)
            begun = asyncio.ensure_future(first)
            await asyncio.sleep(lead_ms / 1000)
            await second
            await begun
        assert serving.agent.configured == Configure("c", {"pool-size": 2, "a": 1})
        assert serving.agent.modules[0].sha256 == Module(engine_for(SETTINGS), SECOND, "").sha256
        await settled(2)
        await changes.end()
        assert live() == (0, 0)

    assert live() == (0, 0)
    uvloop.run(run())


def test_of_blocks_that_disagree_the_last_one_holds() -> None:
    async def run() -> None:
        serving = Serving(SETTINGS, make(FIRST))
        changes = Changes(serving, SETTINGS)
        sizes = [2, 3, 3, 1, 5]
        answers = await asyncio.gather(*(configured(changes, {"pool-size": size}) for size in sizes))
        assert answers == [None] * len(sizes)
        assert serving.agent.configured == Configure("c", {"pool-size": 5})
        await settled(5)
        await changes.end()

    uvloop.run(run())


def test_an_agent_that_is_being_made_when_all_ends_is_freed() -> None:
    async def run() -> None:
        changes = Changes(Serving(SETTINGS, make(FIRST)), SETTINGS)
        with checked(SECOND) as new:
            reload = asyncio.ensure_future(changes.adopt(WANTED, new))
            await asyncio.sleep(0)
            reload.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reload
        await changes.end()
        assert live() == (0, 0)

    uvloop.run(run())
