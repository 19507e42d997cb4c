"""Real agents on real sockets, real modules."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, settings

from sentinel_wasm.client import ClientV1, ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind

from .guest.wat import binary
from .pretending import AgentThat, pretended
from .warm import AGENT, FORGE, WarmProcess

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"

# Others use the machine too: no example of hypothesis has a time limit.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


PATIENCE_S = 30
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

# A machine under load must not make an event late: what tests lateness says how late.
PATIENT = {"WASM_TIMEOUT_MS": "2000", "WASM_PROXY_TIMEOUT_MS": "5000"}


class RunningAgent:
    """`sentinel-wasm-agent` as a process of its own; its log is in `log`."""

    def __init__(
        self,
        directory: Path,
        module: Path | None,
        *options: str,
        environment: dict[str, str] | None = None,
        socket: Path | None = None,
        warm: bool = False,
    ):
        """Without `module`, the options or a file say which. `warm`: forked from a process that has loaded
        what it loads.
        """
        self.socket = socket or directory / "agent.sock"
        self.log_path = directory / "agent.log"
        options = ("--socket", str(self.socket), *(["--module", str(module)] if module else []), *options)
        environment = {**os.environ, **PATIENT, **(environment or {})}
        self.process: subprocess.Popen[bytes] | WarmProcess
        with self.log_path.open("wb") as log:
            if warm:
                self.process = FORGE.start(AGENT, *options, environment=environment, stderr=log)
            else:
                command = [sys.executable, "-m", AGENT, *options]
                self.process = subprocess.Popen(command, stderr=log, env=environment)
        end = time.monotonic() + PATIENCE_S
        while "listening" not in self.log:
            if self.process.poll() is not None:
                raise AssertionError(f"the agent ended with {self.process.returncode}: {self.log}")
            if time.monotonic() > end:
                self.process.kill()
                raise AssertionError(f"no socket after {PATIENCE_S} s: {self.log}")
            time.sleep(0.01)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def wait_for_log(self, text: str) -> str:
        """The first log line with `text` in it."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            for line in self.log.rpartition("\n")[0].splitlines():
                if text in line:
                    return line
            time.sleep(0.01)
        raise AssertionError(f"{text!r} is not in the log: {self.log}")

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """The whole lines of its log, or those with this event."""
        whole = self.log.rpartition("\n")[0].splitlines()
        return [line for line in map(orjson.loads, whole) if event in ("", line["event"])]

    def times_said(self, event: str) -> int:
        """Lines that were left out count."""
        return sum(1 + int(line.get("left_out", 0)) for line in self.lines(event))

    def rss_mib(self) -> float:
        return resident_mib(Path(f"/proc/{self.process.pid}"))

    def v1(self) -> ClientV1:
        return ClientV1(self.socket)

    def v2(self) -> ClientV2:
        return ClientV2(self.socket)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the agent and give its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(15)


def until(condition: Callable[[], object], every_s: float = 0.01) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(every_s)


def has_ended(pid: int) -> bool:
    """A zombie has: who adopts it need not be in a hurry to look."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def resident_mib(process: Path) -> float:
    """Of a process's directory in /proc."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def cpu_seconds(pid: int) -> float:
    """What a process's threads have used so far (proc(5), schedstat)."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def idle_seconds(agent: RunningAgent, client: ClientV1 | ClientV2, seconds: float, few: float) -> float:
    """What an agent uses of the processors in so much time after an answer, when nobody asks.

    The least of three times, or the first that is `few`: what else runs makes every wake-up dearer.
    """
    least = math.inf
    for _ in range(3):
        client.ask(EventKind.REQUEST_HEADERS, request_headers("a"))
        time.sleep(0.3)
        before = cpu_seconds(agent.process.pid)
        time.sleep(seconds)
        least = min(least, cpu_seconds(agent.process.pid) - before)
        if least <= few:
            break
    return least


StartAgent = Callable[..., RunningAgent]
BuildWat = Callable[[str], Path]


@contextlib.contextmanager
def agents(factory: pytest.TempPathFactory, *, warm: bool = True) -> Iterator[StartAgent]:
    """Starts agents; those that are left at the end are stopped, and must end with status 0.

    `warm`: as `RunningAgent` has it, where a start does not say.
    """
    started: list[RunningAgent] = []

    def start(
        module: Path | None,
        *options: str,
        environment: dict[str, str] | None = None,
        socket: Path | None = None,
        warm: bool = warm,
    ) -> RunningAgent:
        # Short: a Unix socket's path has at most 107 bytes.
        directory = factory.mktemp("a")
        agent = RunningAgent(directory, module, *options, environment=environment, socket=socket, warm=warm)
        started.append(agent)
        return agent

    try:
        yield start
    finally:
        for agent in started:
            running = agent.process.poll() is None
            status = agent.stop()
            assert not running or status == 0, agent.log


@pytest.fixture(scope="session", autouse=True)
def compiled_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What agents compile is kept for the other tests, and not among the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WASM_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        yield


@pytest.fixture(scope="session", autouse=True)
def forge() -> Iterator[None]:
    yield
    FORGE.close()


@pytest.fixture
def start_agent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartAgent]:
    """What measures time or memory has agents that started as users start them."""
    with agents(tmp_path_factory, warm=request.node.get_closest_marker("parallel") is not None) as start:
        yield start


@pytest.fixture
def build_wat(tmp_path: Path) -> BuildWat:
    """Builds a module of WebAssembly text, by wasmtime's own wat2wasm."""
    count = iter(range(1000))

    def build(text: str) -> Path:
        path = tmp_path / f"module{next(count)}.wasm"
        path.write_bytes(binary(text))
        return path

    return build


@pytest.fixture
def agent_that(tmp_path: Path) -> Iterator[AgentThat]:
    """Starts an agent of our own making, that answers whatever it reads so."""
    with pretended(tmp_path / "s") as start:
        yield start
