"""What systemd does for a service of Type=notify, as far as the agent can tell.

A stand-in: where the tests run there is no systemd. It speaks the same protocol, of sd_notify(3) and
sd_listen_fds(3): datagrams with descriptors at NOTIFY_SOCKET, the descriptor store with its names, and starts
with LISTEN_FDS.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from .conftest import PATIENT, has_ended, until

if TYPE_CHECKING:
    from typing_extensions import Self

# Puts the descriptors where sd_listen_fds looks for them, and becomes the agent.
_LAUNCHER = """
import fcntl, os, sys
count = int(sys.argv[1])
given = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[2 : 2 + count]]
os.closerange(3, 100)
for number, descriptor in enumerate(given, 3):
    os.dup2(descriptor, number)
    os.close(descriptor)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, *sys.argv[2 + count :]])
"""


class ServiceManager:
    """`said` has what the service has told, oldest first; `stored` is its descriptor store, by name."""

    def __init__(self, directory: Path, *, store: int = 0) -> None:
        """`store` is FileDescriptorStoreMax."""
        self.said: list[dict[str, str]] = []
        self.stored: list[tuple[str, int]] = []
        self.main_pid = 0
        self.log_path = directory / "service.log"
        self._most = store
        self._path = directory / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))
        self._socket.setblocking(False)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def start(
        self, *options: str | Path, given: list[tuple[str, int]] | None = None, watchdog_us: int = 0
    ) -> None:
        """Start the service, with these descriptors and what is stored, and wait until it is ready."""
        self.begin(*options, given=given, watchdog_us=watchdog_us)
        self.wait_for("READY", "1")

    def begin(
        self, *options: str | Path, given: list[tuple[str, int]] | None = None, watchdog_us: int = 0
    ) -> None:
        if self._process is not None:
            self._process.wait(15)
        passed = [*(given or []), *self.stored]
        self.said.clear()
        environment = {**os.environ, **PATIENT, "NOTIFY_SOCKET": str(self._path)}
        if passed:
            environment["LISTEN_FDS"] = str(len(passed))
            environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in passed)
        if self._most:
            environment["FDSTORE"] = str(self._most)
        if watchdog_us:
            environment["WATCHDOG_USEC"] = str(watchdog_us)
        descriptors = [descriptor for _, descriptor in passed]
        command = [
            sys.executable,
            "-c",
            _LAUNCHER,
            str(len(passed)),
            *map(str, descriptors),
            "-m",
            "sentinel_wasm.cli.agent",
            *map(str, options),
        ]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log, env=environment, pass_fds=descriptors)
        self.main_pid = self._process.pid

    def wait_for(self, variable: str, value: str) -> None:
        def is_said() -> bool:
            self.listen()
            assert not has_ended(self.main_pid), self.log
            return any(said.get(variable) == value for said in self.said)

        until(is_said)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """As `until`, but what is said meanwhile is taken in."""

        def is_so() -> bool:
            self.listen()
            return condition()

        until(is_so)

    def listen(self) -> None:
        """Take in what has been said until now."""
        while select.select([self._socket], [], [], 0)[0]:
            data, descriptors, _, _ = socket.recv_fds(self._socket, 65_536, 16)
            said = dict(line.split("=", 1) for line in data.decode().splitlines())
            self.said.append(said)
            if "MAINPID" in said:
                self.main_pid = int(said["MAINPID"])
            name = said.get("FDNAME", "stored")
            if said.get("FDSTORE") == "1":
                self._store(name, descriptors)
            elif said.get("FDSTOREREMOVE") == "1":
                self._remove({name})
        self._drop_dead()

    def _store(self, name: str, descriptors: list[int]) -> None:
        assert name.isascii()
        assert ":" not in name
        assert len(name) <= 255
        for descriptor in descriptors:
            if len(self.stored) < self._most:
                self.stored.append((name, descriptor))
            else:
                os.close(descriptor)

    def _remove(self, names: set[str]) -> None:
        for name, descriptor in self.stored:
            if name in names:
                os.close(descriptor)
        self.stored = [(name, descriptor) for name, descriptor in self.stored if name not in names]

    def _drop_dead(self) -> None:
        """What has been hung up is kept no longer."""
        poll = select.poll()
        for _, descriptor in self.stored:
            poll.register(descriptor, 0)
        dead = {descriptor for descriptor, _ in poll.poll(0)}
        for name, descriptor in list(self.stored):
            if descriptor in dead:
                os.close(descriptor)
                self.stored.remove((name, descriptor))

    def kill(self, number: int) -> None:
        """Signal the main process and wait for its end."""
        os.kill(self.main_pid, number)
        self.wait_for_end()
        self.listen()

    def wait_for_end(self) -> None:
        assert self._process is not None
        if self.main_pid == self._process.pid:
            self._process.wait(15)
        until(lambda: has_ended(self.main_pid))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            if not has_ended(self.main_pid):
                self.kill(signal.SIGTERM if error is None else signal.SIGKILL)
            self._process.wait(15)
        self._remove({name for name, _ in self.stored})
        self._socket.close()
