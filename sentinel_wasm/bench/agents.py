"""The agents that are measured: one that is started for a module, or one that runs already."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from sentinel_wasm import metrics
from sentinel_wasm.bench import processes
from sentinel_wasm.errors import UserError
from sentinel_wasm.server.peer import peer_of
from sentinel_wasm.settings import Address, options, parse_address

_PATIENCE_S = 60.0
_STOP_S = 15.0
_POLL_S = 0.005
_GUEST_S = metrics.series("guest_call_duration_seconds_sum")


@dataclass(frozen=True)
class Agent:
    """`pid` is its first process, None where it is not to be seen; `admin` where its metrics are."""

    socket: Path
    pid: int | None
    admin: Address | None = None

    def cpu_ns(self) -> int | None:
        """What all its processes have used so far."""
        return None if self.pid is None else processes.cpu_ns(self.pid)

    def guest_ns(self) -> int | None:
        """How long the module's calls have taken so far."""
        if self.admin is None:
            return None
        for line in _metrics(self.admin).splitlines():
            name, _, value = line.partition(" ")
            if name == _GUEST_S:
                return round(float(value) * 1e9)
        return None


def running(path: Path) -> Agent:
    """The one that listens on a socket. Raises UserError."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            pid = peer_of(sock).pid
    except OSError as error:
        raise UserError(f"{path}: nobody to connect to: {error.strerror or error}") from None
    # Who opened the socket may have handed it on: one that has ended or that started us is not the agent.
    family = processes.family(pid)
    return Agent(path, pid if family and os.getpid() not in family else None)


@contextmanager
def started(module: Path, directory: Path, *flags: str) -> Iterator[Agent]:
    """One for a module, on a socket in `directory`. Raises UserError where it does not start."""
    path, log = directory / "agent.sock", directory / "agent.log"
    fixed = ("--socket", path, "--module", module, "--admin", "127.0.0.1:0", "--log-format", "json")
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "sentinel_wasm.cli.agent", *fixed, *flags],
            stdout=output,
            stderr=output,
            env=_environment(),
        )
    try:
        pid = process.pid if processes.family(process.pid) else None
        yield Agent(path, pid, _admin(process, module, log))
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment() -> dict[str, str]:
    """Ours without the agent's options, but for the place of compiled modules."""
    variables = {option.variable for option in options() if option.field != "cache_dir"} | {"WASM_CONFIG"}
    return {name: value for name, value in os.environ.items() if name not in variables}


def _admin(process: subprocess.Popen[bytes], module: Path, log: Path) -> Address:
    """Where its metrics are, once it listens."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        has_ended = process.poll() is not None
        lines = log.read_bytes().rpartition(b"\n")[0].splitlines()
        if has_ended:
            words = lines[-1].decode(errors="replace") if lines else f"it ended with {process.returncode}"
            raise UserError(f"no agent starts for {module}: {words.removeprefix('sentinel-wasm-agent: ')}")
        said = {
            line["event"]: line for line in map(orjson.loads, (line for line in lines if line[:1] == b"{"))
        }
        if "listening" in said:
            return parse_address(said["admin endpoint"]["address"])
        time.sleep(_POLL_S)
    raise UserError(f"the agent for {module} does not listen after {_PATIENCE_S:.0f} s")


def _metrics(address: Address) -> str:
    """Raises UserError."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_STOP_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"the agent does not say its metrics: {error}") from None
    finally:
        connection.close()
