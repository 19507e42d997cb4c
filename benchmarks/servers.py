"""What is measured side by side: how each is started, and what its processes use."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import work
from benchmarks.tools import ToolError
from sentinel_wasm.bench import processes
from sentinel_wasm.client import ClientV1, ClientV2
from sentinel_wasm.protocol.events import EventKind

_PATIENCE_S = 60
_POLL_S = 0.002

# A stall of the machine must not end the run: only the times differ from the defaults, not what is done.
_PATIENT = ("--timeout-ms", "2000", "--proxy-timeout-ms", "5000")


@dataclass(frozen=True)
class Kind:
    """One of the servers. `command` has {socket} and {module} in it, `environment`'s values too."""

    name: str
    title: str
    protocols: frozenset[int]
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def command_line(self) -> str:
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return " ".join([*variables, Path(self.command[0]).name, *map(shlex.quote, self.command[1:])])


def floor(program: Path) -> Kind:
    return Kind("floor", "floor (C, no guest)", frozenset({1, 2}), (str(program), "{socket}"))


def rust_v1(program: Path) -> Kind:
    command = (str(program), "--socket", "{socket}", "--module", "{module}")
    return Kind("rust-v1", "Rust agent, v1", frozenset({1}), command)


def rust_v2(program: Path) -> Kind:
    command = (str(program), "--module", "{module}")
    return Kind("rust-v2", "Rust agent, v2", frozenset({2}), command, {"WASM_UDS": "{socket}"})


def ours() -> Kind:
    command = (
        sys.executable,
        "-m",
        "sentinel_wasm.cli.agent",
        "--socket",
        "{socket}",
        "--module",
        "{module}",
    )
    return Kind("ours", "sentinel-wasm", frozenset({1, 2}), (*command, *_PATIENT))


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to; kill it where it does not."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Server:
    """A started server that has answered; `first_answer_s` is how long that took."""

    def __init__(self, kind: Kind, module: Path, directory: Path) -> None:
        """Raises ToolError where it does not start."""
        self.kind = kind
        self.socket = directory / f"{kind.name}.sock"
        self._log = directory / f"{kind.name}.log"
        self.socket.unlink(missing_ok=True)
        places = {"socket": str(self.socket), "module": str(module)}
        environment = {name: value.format(**places) for name, value in kind.environment.items()}
        start = time.monotonic()
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [word.format(**places) for word in kind.command],
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **environment},
                )
        except OSError as error:
            raise ToolError(f"{kind.title}: cannot run {kind.command[0]}: {error.strerror}") from None
        try:
            self._ask(start + _PATIENCE_S)
        except BaseException:
            self.stop()
            raise
        self.first_answer_s = time.monotonic() - start

    def _ask(self, end: float) -> None:
        while True:
            try:
                client = (ClientV1 if 1 in self.kind.protocols else ClientV2)(self.socket)
            except OSError:
                if self._process.poll() is not None:
                    raise ToolError(
                        f"{self.kind.title} ended with {self._process.returncode}: {self.last_words()}"
                    ) from None
                if time.monotonic() > end:
                    raise ToolError(
                        f"{self.kind.title} does not listen after {_PATIENCE_S} s: {self.last_words()}"
                    ) from None
                time.sleep(_POLL_S)
                continue
            with client:
                answer = client.ask(EventKind.REQUEST_HEADERS, work.payload(12))
            if answer["decision"] != "allow":
                raise ToolError(f"{self.kind.title} does not allow: {answer}")
            return

    def last_words(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-1000:].strip() or "its log is empty"

    def cpu_s(self) -> float:
        """User and system time of all its processes."""
        return processes.cpu_ns(self._process.pid) / 1e9

    def rss_mib(self) -> float:
        return processes.rss_mib(self._process.pid)

    def stop(self) -> None:
        end(self._process)
