"""The C tools in benchmarks/load, compiled when they are needed."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks import work
from sentinel_wasm.bench.histogram import Histogram

_SOURCES = Path(__file__).parent / "load"
_FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra")
_GRACE_S = 30  # a stalled server is load.c's to notice, in 10 s


class ToolError(Exception):
    """A tool cannot be built, or what it measured cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Shape:
    """How events are sent: so many connections, and events in flight on each."""

    protocol: int
    connections: int
    depth: int = 1

    @property
    def text(self) -> str:
        return f"{self.connections}" if self.protocol == 1 else f"{self.connections} × {self.depth}"

    def __str__(self) -> str:
        return f"v{self.protocol}, {self.text}"


@dataclass(frozen=True)
class Load:
    """What load.c measured in one run; its first lines say what each means."""

    events_s: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    answered: int
    seconds: float
    client_busy: float
    histogram: Histogram


def build(name: str, directory: Path) -> Path:
    """Compile benchmarks/load/NAME.c. Raises ToolError."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise ToolError("no C compiler (cc); install one: apt-get install gcc libc6-dev")
    program = directory / name
    command = [compiler, *_FLAGS, "-o", str(program), str(_SOURCES / f"{name}.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"{name}.c does not compile:\n{done.stderr.strip()}")
    return program


class Generator:
    """Sends events with so many headers, and checks and times the answers."""

    def __init__(self, directory: Path, headers: int) -> None:
        """Raises ToolError."""
        self._program = build("load", directory)
        self._events = {1: directory / "event-v1.json", 2: directory / "event-v2.json"}
        self._events[1].write_bytes(work.frame_v1(headers))
        self._events[2].write_bytes(work.frame_v2(headers))

    def run(self, socket: Path, shape: Shape, warm_up_s: float, seconds: float) -> Load:
        """Raises ToolError where the server stalls, closes or gives a wrong answer."""
        numbers = [shape.connections, shape.depth, warm_up_s, seconds]
        where = [str(self._program), str(socket), f"v{shape.protocol}"]
        what = [str(self._events[shape.protocol]), work.CORRELATION_ID]
        limit_s = warm_up_s + seconds + _GRACE_S
        try:
            done = subprocess.run(
                [*where, *map(str, numbers), *what],
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ToolError(f"the load generator did not end within {limit_s:.0f} s") from None
        if done.returncode:
            raise ToolError(done.stderr.strip() or f"the load generator ended with {done.returncode}")
        found = orjson.loads(done.stdout)
        return Load(**{**found, "histogram": Histogram(tuple(map(tuple, found["histogram"])))})
