"""Four agents that proxies reach over gRPC, as four machines would have them."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from ..conftest import RunningAgent
from ..reloading import put, reload
from ..scraping import Scraped
from .balancer import Backend
from .proxy import free_port

SIZE = 4


class Machine:
    """An agent with its own copy of the module; a new one after it listens at the same addresses."""

    def __init__(self, directory: Path, wasm: bytes, options: Sequence[str]) -> None:
        self.at = Backend(free_port(), free_port())
        self._directory = directory
        self._module = directory / "filter.wasm"
        self._options = options
        self._starts = count()
        self._module.write_bytes(wasm)
        self.start()

    def start(self) -> None:
        directory = self._directory / str(next(self._starts))
        directory.mkdir()
        addresses = ("--grpc", f"127.0.0.1:{self.at.port}", "--admin", f"127.0.0.1:{self.at.admin}")
        self.agent = RunningAgent(directory, self._module, *addresses, *self._options)

    def kill(self) -> None:
        self.agent.stop(signal.SIGKILL)

    def restart(self) -> None:
        assert self.agent.stop() == 0, self.agent.log
        self.start()

    def hang(self) -> None:
        self.agent.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.agent.process.send_signal(signal.SIGCONT)

    def roll_out(self, wasm: bytes) -> None:
        """Another module, by a reload."""
        put(self._module, wasm)
        assert reload(self.agent)["event"] == "reloaded", self.agent.log

    def events(self) -> int:
        """How many it has answered since it started."""
        return int(sum(Scraped(self.agent).by("hook", "events_total").values()))


@contextmanager
def fleet(directory: Path, wasm: bytes, *options: str) -> Iterator[list[Machine]]:
    """Those that still run at the end must stop as an agent does."""
    machines: list[Machine] = []
    try:
        for number in range(SIZE):
            folder = directory / str(number)
            folder.mkdir()
            machines.append(Machine(folder, wasm, options))
        yield machines
    finally:
        for machine in machines:
            machine.go_on()
            running = machine.agent.process.poll() is None
            status = machine.agent.stop()
            assert not running or status == 0, machine.agent.log
