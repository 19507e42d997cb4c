"""The real proxies as processes, and HTTP requests through them."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent
_SHARED = _HERE.parent.parent.parent / "shared" / "bin"

# A busy machine may take longer than the published 50 ms: tests of decisions must not hang on that.
_PATIENT_TIMEOUT_MS = 1000
TIMEOUT = "timeout-ms 50"

# Two of the three places of failure-mode in both configurations, for tests that change one.
AGENT_CLOSED = 'failure-mode "closed"\n        events'
FILTER_CLOSED = 'agent "wasm"\n        failure-mode "closed"'

_START_S = 20.0
_REPLY_S = 10.0


@dataclass(frozen=True, slots=True)
class ProxyKind:
    """One published proxy: `variable` names its binary, `file` its configuration, which has `timeout` so."""

    name: str
    variable: str
    file: str
    timeout: str = TIMEOUT

    def configuration(self) -> str:
        """The configuration that docs/proxies.md shows."""
        return (_HERE / self.file).read_text()

    def path(self) -> Path:
        """Where the binary should be."""
        given = os.environ.get(self.variable)
        return Path(given).resolve() if given else _SHARED / self.name

    def binary(self) -> Path:
        """The binary; skips the test where there is none."""
        path = self.path()
        if not path.is_file():
            pytest.skip(f"no {self.name} at {path}: `make e2e` installs it, or set {self.variable}")
        return path


ZENTINEL = ProxyKind("zentinel", "ZENTINEL_BIN", "zentinel.kdl")
SENTINEL = ProxyKind("sentinel", "SENTINEL_BIN", "sentinel.kdl")
SENTINEL_FRAMES = ProxyKind("sentinel", "SENTINEL_BIN", "sentinel-websocket.toml", "timeout_ms = 50")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the client got; `whole` is False where the body ended before its Content-Length."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    whole: bool = True

    @property
    def seen_by_upstream(self) -> dict[str, Any]:
        """The upstream's report of the request, with header names in lower case."""
        report: dict[str, Any] = json.loads(self.body)
        return report


class RunningProxy:
    """A proxy on a free loopback port, ready to take requests."""

    def __init__(self, binary: Path, path: Path, port: int) -> None:
        """`path` is its configuration."""
        directory = path.parent
        self.port = port
        self._log_path = directory / "proxy.log"
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [binary, "-c", path],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, "RUST_BACKTRACE": "0"},
            )
        wait_until_listening(self._process, port, self._log_path)

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return self.request("GET", path, headers)

    def post(self, path: str, body: str, content_type: str | None = "application/json") -> Reply:
        headers = {"Content-Type": content_type} if content_type else {}
        return self.request("POST", path, headers, body.encode())

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Reply:
        """One request on a connection of its own, as a well-behaved client unless `headers` say more."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_REPLY_S)
        try:
            connection.request(method, path, body, {"User-Agent": "e2e", **(headers or {})})
            response = connection.getresponse()
            try:
                return Reply(response.status, response.headers, response.read())
            except http.client.IncompleteRead as cut:
                return Reply(response.status, response.headers, cut.partial, whole=False)
        finally:
            connection.close()

    def kill(self) -> None:
        """No signal to ask politely: the proxies take up to minutes to shut down."""
        self._process.kill()
        self._process.wait()


def wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until it can be connected to; kills it where it cannot be, and says why."""
    end = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
                continue
        process.kill()
        status = process.wait()
        raise AssertionError(f"nothing listens on {port}; it ended with {status}: {log.read_text()}")


def start_proxy(
    kind: ProxyKind, directory: Path, upstream_port: int, agent_socket: Path, changes: Mapping[str, str]
) -> RunningProxy:
    """Start `kind` with its documented configuration, pointed at this test's ports and socket.

    `changes` are further replacements in the configuration; each must be there, once.
    """
    port = free_port()
    configuration = kind.configuration()
    replacements = {
        "127.0.0.1:8080": f"127.0.0.1:{port}",
        "127.0.0.1:3000": f"127.0.0.1:{upstream_port}",
        "/tmp/sentinel-wasm.sock": str(agent_socket),
        kind.timeout: kind.timeout.replace("50", str(_PATIENT_TIMEOUT_MS)),
        **changes,
    }
    for old in replacements:
        assert configuration.count(old) == 1, f"{old!r} is not once in {kind.file}"
    # All in one pass: a port that begins with 3000 must not be taken for the one to replace.
    any_old = re.compile("|".join(map(re.escape, replacements)))
    path = directory / kind.file
    path.write_text(any_old.sub(lambda found: replacements[found[0]], configuration))
    return RunningProxy(kind.binary(), path, port)


def free_port() -> int:
    """Below the range that the kernel gives to clients: none of them can take it before the proxy does."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
