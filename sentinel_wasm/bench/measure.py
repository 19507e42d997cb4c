"""The rounds: an agent of each side is started, warmed up, measured and stopped, in turn."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import wasmtime

from sentinel_wasm.bench import agents
from sentinel_wasm.bench.agents import Agent
from sentinel_wasm.bench.events import Request
from sentinel_wasm.bench.load import Load, protocol_of
from sentinel_wasm.bench.reference import TRIVIAL
from sentinel_wasm.bench.results import Shape, Side
from sentinel_wasm.errors import ProtocolError, UserError

REFERENCE = "reference"
_WARM_UP = 0.2  # of the time that is measured


@dataclass(frozen=True)
class Target:
    """A module, or a socket where an agent listens; None: the reference. `flags` are its agent's."""

    path: Path | None
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return REFERENCE if self.path is None else str(self.path)

    @contextmanager
    def agent(self, directory: Path) -> Iterator[Agent]:
        """A fresh one for a module. Raises UserError."""
        module = self.path
        if module is not None and _is_socket(module):
            yield agents.running(module)
            return
        if module is None:
            module = directory / "reference.wasm"
            module.write_bytes(wasmtime.wat2wasm(TRIVIAL))
        with agents.started(module, directory, *self.flags) as agent:
            yield agent


def _is_socket(path: Path) -> bool:
    """Raises UserError where there is nothing."""
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError as error:
        raise UserError(f"{path}: there is neither a module nor a socket: {error.strerror}") from None


def measure(
    targets: tuple[Target, Target],
    requests: list[Request],
    shape: Shape,
    directory: Path,
    advance: Callable[[int], None],
) -> tuple[Side, Side]:
    """`advance` gets 1 behind each part, of which every round has two. Raises UserError."""
    sides = Side(targets[0].name), Side(targets[1].name)
    both = list(zip(targets, sides, strict=True))
    for target in reversed(targets):  # what cannot be measured is said at once, what can is compiled then
        with target.agent(directory) as agent:
            if protocol_of(agent.socket) == 1 and shape.in_flight > 1:
                raise UserError(f"{target.name} speaks v1, which has one event in flight on a connection")
    for number in range(shape.rounds):
        # Whose turn is first changes: what drifts is in both alike.
        for target, side in both if number % 2 == 0 else reversed(both):
            with target.agent(directory) as agent:
                _part(agent, side, requests, shape)
            advance(1)
    return sides


def _part(agent: Agent, side: Side, requests: list[Request], shape: Shape) -> None:
    where = agent.socket, protocol_of(agent.socket)
    try:
        with Load(*where, requests, shape.connections, shape.in_flight) as load:
            load.run(shape.seconds * _WARM_UP)
            before = agent.cpu_ns(), agent.guest_ns()
            run = load.run(shape.seconds)
            cpu_ns, guest_ns = agent.cpu_ns(), agent.guest_ns()
    except (OSError, ProtocolError) as error:
        raise UserError(f"{side.name}: {error}") from None
    side.add(run, _since(before[0], cpu_ns), _since(before[1], guest_ns))


def _since(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before
