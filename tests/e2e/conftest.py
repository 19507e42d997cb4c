"""Whole stacks: client, proxy, agent, upstream."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from ..conftest import EXAMPLES, RunningAgent, StartAgent
from .proxy import ProxyKind, RunningProxy, start_proxy
from .upstream import Upstream

SECURITY = EXAMPLES / "c" / "security.wasm"


class Stack:
    """A proxy with an agent before an upstream."""

    def __init__(self, agent: RunningAgent, proxy: RunningProxy, module: Path) -> None:
        self.agent = agent
        self.proxy = proxy
        self._module = module
        self._restarted: RunningAgent | None = None

    def kill_agent(self) -> None:
        """SIGKILL, as the kernel does when memory runs out: the socket file stays."""
        self.agent.stop(signal.SIGKILL)

    def restart_agent(self) -> None:
        """A new agent on the old one's socket."""
        self.agent = self._restarted = RunningAgent(self.agent.socket.parent, self._module)

    def close(self) -> None:
        self.proxy.kill()
        if self._restarted is not None:
            self._restarted.stop()


class StartStack(Protocol):
    def __call__(
        self,
        kind: ProxyKind,
        *options: str,
        module: Path = SECURITY,
        changes: Mapping[str, str] | None = None,
    ) -> Stack: ...


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def start_stack(upstream: Upstream, start_agent: StartAgent, tmp_path: Path) -> Iterator[StartStack]:
    """Starts an agent with `options` and a proxy with `changes` to its configuration before it."""
    started: list[Stack] = []

    def start(
        kind: ProxyKind,
        *options: str,
        module: Path = SECURITY,
        changes: Mapping[str, str] | None = None,
    ) -> Stack:
        kind.binary()  # skips before anything starts
        agent = start_agent(module, *options)
        proxy = start_proxy(kind, tmp_path, upstream.port, agent.socket, changes or {})
        started.append(Stack(agent, proxy, module))
        return started[-1]

    yield start
    for stack in started:
        stack.close()
