"""HAProxy between a proxy and its agents: it spreads connections, and cuts those to an agent that hangs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import pytest

from .proxy import free_port, wait_until_listening

if TYPE_CHECKING:
    from typing_extensions import Self

_CHECK_MS = 250

_CONFIGURATION = """
defaults
    mode tcp
    timeout connect 1s
    timeout client 1h
    timeout server 1h
    timeout check {check_ms}
listen agents
    bind 127.0.0.1:{port}
    balance leastconn
    option httpchk
    http-check send meth GET uri /healthz ver HTTP/1.1 hdr Host localhost
    default-server check inter {check_ms} fall 2 rise 1 on-marked-down shutdown-sessions
"""


class Backend(NamedTuple):
    """An agent's ports on 127.0.0.1: gRPC, and where its health is asked."""

    port: int
    admin: int


class Balancer:
    """Listens on `port` of 127.0.0.1 until the end of its block."""

    def __init__(self, directory: Path, backends: Sequence[Backend]) -> None:
        """Skips the test where there is no HAProxy."""
        program = shutil.which("haproxy")
        if program is None:
            pytest.skip("no haproxy: apt-get install haproxy")
        self.port = free_port()
        self._log_path = directory / "haproxy.log"
        path = directory / "haproxy.cfg"
        path.write_text(
            _CONFIGURATION.format(port=self.port, check_ms=_CHECK_MS)
            + "".join(
                f"    server agent{number} 127.0.0.1:{backend.port} port {backend.admin}\n"
                for number, backend in enumerate(backends)
            )
        )
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "-db", "-f", path], stdout=log, stderr=subprocess.STDOUT
            )
        wait_until_listening(self._process, self.port, self._log_path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
