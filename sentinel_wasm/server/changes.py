"""How the agent of one process is exchanged for another: at a reload, and when a proxy configures it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import orjson
import structlog

from sentinel_wasm.agent import Agent
from sentinel_wasm.answering import Answering
from sentinel_wasm.chain import agent_for
from sentinel_wasm.errors import ModuleError, ModuleLoadError, UserError
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.artefact import Artefact
from sentinel_wasm.guest.crew import GRACE_NS
from sentinel_wasm.guest.engine import Engine, engine_for
from sentinel_wasm.guest.limits import START_MS
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.pool import LATER, Answered, Configured
from sentinel_wasm.protocol.events import Configure
from sentinel_wasm.server.block import Block, parse
from sentinel_wasm.server.compiling import Checked
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.settings import Settings, Wanted

_log = structlog.stdlib.get_logger("server")

_MS_NS = 1_000_000
_LOOK_S = 0.01  # how often one looks whether an agent has answered all it has

Load = Callable[[Engine], Module]
"""Gives a module on an engine of its own."""


class Changes:
    """Made on the event loop that serves. Each agent has its module and its engine to itself.

    What the last Configure said holds over the settings, whatever is reloaded. A new agent is made in
    another thread, nearly all of it without the GIL; events that the old one has are answered by it.
    """

    def __init__(self, serving: Serving, settings: Settings) -> None:
        """`settings` are those of the agent that serves, which this attaches to the loop."""
        self._serving = serving
        self._settings = settings
        self._block = Block()
        self._holds = settings  # with what the block says
        self._configuring = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._attach(serving.agent)

    async def adopt(self, wanted: Wanted, checked: Sequence[Checked], *, warns: bool = True) -> None:
        """Have an agent with these settings answer, by these modules. Raises ModuleLoadError; then the old
        one goes on. `warns`: as for `run.started_agent`.
        """
        settings = wanted.settings
        loads = [_load(*each) for each in zip(settings.each, checked, strict=True)]
        while True:
            block = self._block
            agent = await make_agent(block.over(settings), loads, self._serving.agent)
            if block == self._block:
                break
            await _free(agent)  # the proxy has said something else meanwhile
        self._exchange(agent, settings, block)
        if warns:
            warn(wanted, agent.modules)

    def with_block(self, settings: Settings) -> Settings:
        """With what the proxy's block says over them."""
        return self._block.over(settings)

    def configure(self, event: Configure, deadline_ns: int, answered: Answered) -> Configured:
        """Apply a proxy's block, as `agent.Configure`. Raises EventError where it cannot be passed on."""
        try:
            block = parse(event.config)
        except ModuleError as error:
            return error
        if not self._configuring.locked() and block.over(self._settings) == self._holds:
            self._block = block
            return None
        self._begin(self._answer(event, block, deadline_ns, answered))
        return LATER

    async def end(self) -> None:
        """After the last event: free what is left."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await _end(self._serving.agent)

    # Configure

    async def _answer(self, event: Configure, block: Block, deadline_ns: int, answered: Answered) -> None:
        """Within the deadline, whatever becomes of it; what is not done by then is not done at all."""
        applying = self._loop.create_task(self._apply(block, deadline_ns))
        left_ns = deadline_ns + 2 * GRACE_NS - time.monotonic_ns()
        done, _ = await asyncio.wait({applying}, timeout=max(left_ns, 0) / 1e9)
        error = applying.result() if done else _too_late()
        if error is None:
            self._serving.agent.configured = event  # which need not be the agent that answers
        answered(error)
        await applying

    async def _apply(self, block: Block, deadline_ns: int) -> ModuleError | None:
        """One block after another: of proxies that disagree, the last one wins."""
        async with self._configuring:
            try:
                while True:
                    agent, settings = self._serving.agent, block.over(self._settings)
                    if settings == self._holds:
                        self._block = block
                        return None
                    config = self._holds.module_config
                    if isinstance(agent, Agent) and replace(settings, module_config=config) == self._holds:
                        await self._tell_module(agent, settings.module_config, deadline_ns)
                        if self._serving.agent is agent:
                            self._block, self._holds = block, settings
                            return None
                        continue  # reloaded meanwhile
                    start_ms = (deadline_ns - time.monotonic_ns()) // _MS_NS
                    if start_ms <= 0:
                        return _too_late()
                    loads = [module.on for module in agent.modules]
                    new = await make_agent(settings, loads, agent, start_ms)
                    is_late = time.monotonic_ns() >= deadline_ns
                    if not is_late and self._serving.agent is agent:
                        self._exchange(new, self._settings, block)
                        return None
                    await _free(new)
                    if is_late:
                        return _too_late()
            except ModuleLoadError as error:
                why = error.__cause__
                return why if isinstance(why, ModuleError) else ModuleError(str(error), "refused")
            except ModuleError as error:
                return error
            except Exception as defect:
                _log.error("internal error, please report it", exc_info=defect)
                return ModuleError(f"internal error: {type(defect).__name__}")

    async def _tell_module(self, agent: Agent, config: str | None, deadline_ns: int) -> None:
        """The agent stays, only its module gets something else. Raises ModuleError."""
        answer: asyncio.Future[ModuleError | None] = self._loop.create_future()
        given = Configure("", None if config is None else orjson.loads(config))
        outcome = agent.configure_module(given, deadline_ns, answer.set_result)
        if outcome is LATER:
            outcome = await answer
        if outcome is not None:
            raise outcome

    # Agents

    def _attach(self, agent: Answering) -> None:
        agent.attach(self._loop, self._serving.tell_health, self.configure)

    def _exchange(self, agent: Answering, settings: Settings, block: Block) -> None:
        """From the next event on."""
        self._attach(agent)
        old = self._serving.exchange(agent)
        self._settings, self._block, self._holds = settings, block, block.over(settings)
        self._begin(self._retire(old))

    async def _retire(self, agent: Answering) -> None:
        """Free it when its events are answered, and nobody makes another of it."""
        async with self._configuring:
            pass
        await _end(agent)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _load(settings: Settings, checked: Checked) -> Load:
    artefact = Artefact(checked.artefact, from_cache=checked.from_cache)
    return lambda engine: Module(engine, checked.wasm, str(settings.module), artefact)


async def make_agent(
    settings: Settings, loads: Sequence[Load], before: Answering | None = None, start_ms: int = START_MS
) -> Answering:
    """In another thread, with a load for each module; the rest is as for `agent_for`. Raises UserError."""

    def make() -> Answering:
        modules: list[Module] = []
        try:
            for each, load in zip(settings.each, loads, strict=True):
                modules.append(_loaded(engine_for(each), load))
            return agent_for(settings, modules, before, start_ms)
        except BaseException:
            for module in modules:
                module.close()
            raise

    making = asyncio.get_running_loop().run_in_executor(None, make)
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        with contextlib.suppress(UserError):
            await _free(await making)
        raise


def _loaded(engine: Engine, load: Load) -> Module:
    try:
        return load(engine)
    except BaseException:
        engine.end()
        raise


async def _end(agent: Answering) -> None:
    """Free it when workers have no event of it any more."""
    while agent.pending:
        await asyncio.sleep(_LOOK_S)
    agent.detach()
    await _free(agent)


async def _free(agent: Answering) -> None:
    def free() -> None:
        agent.close()
        for module in agent.modules:
            module.close()

    await asyncio.get_running_loop().run_in_executor(None, free)


def _too_late() -> ModuleError:
    return ModuleError("there was no time left to apply it; the event's time is --timeout-ms", "deadline")


def warn(wanted: Wanted, modules: Sequence[Module]) -> None:
    """Say in the log what about modules seems wrong."""
    settings = wanted.settings
    names_given = [linked.header_names_given for linked in settings.chain] or [wanted.header_names_given]
    for each, is_given, module in zip(settings.each, names_given, modules, strict=True):
        log = _log.bind(file=str(each.module), module=module.digest)
        if module.looks_up_lower_case and not is_given:
            log.warning(
                "the module seems to look up header names in lower case, but gets them as User-Agent;"
                " start with --header-names lower if its rules do not match"
            )
        if each.module_config is not None and not module.hooks[abi.ON_CONFIGURE]:
            log.warning("the module has no on_configure: [module.config] is not looked at")
