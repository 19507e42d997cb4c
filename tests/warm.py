"""Our programs as processes that start at once: forked from one that has loaded what they load.

To load it is nine tenths of an agent's start. From there on they are like any others, with arguments,
environment, files, signals and an end of their own. What measures time or memory starts as users start it; on
macOS everything does, since its libraries are not for forked processes.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import orjson

from sentinel_wasm.cli.toolkit import COMMANDS

ROOT = Path(__file__).parent.parent
AGENT, TOOLKIT = "sentinel_wasm.cli.agent", "sentinel_wasm.cli.toolkit"
LOADED = (
    AGENT,
    "sentinel_wasm.server.run",
    TOOLKIT,
    *(f"sentinel_wasm.cli.{file}" for file in COMMANDS.values()),
)
_NUMBER = struct.Struct("i")
_MOST_BYTES = 1 << 17  # of an order


class WarmProcess:
    """One of them, as subprocess.Popen has it."""

    def __init__(self, report: int) -> None:
        """From `report`, the end of a pipe, come its number and, when it has ended, its exit status."""
        self.pid = _read_number(report)
        self.returncode: int | None = None
        self._report = report

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, or below zero a signal. Raises TimeoutExpired after `timeout` s."""
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._report, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self.returncode = _read_number(self._report)
            os.close(self._report)
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forge:
    """Starts them. The process that they are forked from is started when the first is wanted."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()

    def start(
        self,
        program: str,
        *arguments: str | Path,
        environment: Mapping[str, str] | None = None,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
    ) -> WarmProcess | subprocess.Popen[bytes]:
        """`program` is a module with a `main`. Without an environment or a file it has ours."""
        if sys.platform != "linux":
            command = [sys.executable, "-m", program, *arguments]
            return subprocess.Popen(command, env=environment, stdin=stdin, stdout=stdout, stderr=stderr)
        with self._starting:
            if self._process is None:
                self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", __name__], stdin=theirs.fileno(), cwd=ROOT
                    )
        files = [file.fileno() if file else number for number, file in enumerate((stdin, stdout, stderr))]
        order = [program, list(map(str, arguments)), dict(environment or os.environ), os.getcwd()]
        report, theirs_to_report = os.pipe()
        socket.send_fds(self._orders, [orjson.dumps(order)], [*files, theirs_to_report])
        os.close(theirs_to_report)
        return WarmProcess(report)

    def run(
        self,
        program: str,
        *arguments: str | Path,
        data: bytes = b"",
        environment: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """To its end, `data` being its stdin. Raises TimeoutExpired after so many seconds."""
        with contextlib.ExitStack() as stack:
            stdin, stdout, stderr = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            stdin.write(data)
            stdin.seek(0)
            process = self.start(
                program, *arguments, environment=environment, stdin=stdin, stdout=stdout, stderr=stderr
            )
            try:
                status = process.wait(timeout)
            finally:
                process.kill()
            for file in (stdout, stderr):
                file.seek(0)
            return subprocess.CompletedProcess(
                arguments, status, stdout.read().decode(), stderr.read().decode()
            )

    def close(self) -> None:
        if self._process is not None:
            self._orders.close()
            self._process.wait()
            self._process = None


FORGE = Forge()


def _read_number(pipe: int) -> int:
    (number,) = _NUMBER.unpack(os.read(pipe, _NUMBER.size))
    return int(number)


def _fork_all(orders: socket.socket) -> str:
    """Forks for each order, and ends with them. Returns the program's name in each process that is forked."""
    running: dict[int, tuple[int, int]] = {}  # who waits for its end: its number, and where to report
    poll = select.poll()
    poll.register(orders, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in running:
                pid, report = running.pop(descriptor)
                poll.unregister(descriptor)
                os.close(descriptor)
                _, status = os.waitpid(pid, 0)
                with contextlib.suppress(BrokenPipeError):
                    os.write(report, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
                os.close(report)
                continue
            order, files, _, _ = socket.recv_fds(orders, _MOST_BYTES, 4)
            if not order:
                sys.exit()
            pid = os.fork()
            if pid == 0:
                orders.close()
                return _become(order, files)
            *theirs, report = files
            for file in theirs:
                os.close(file)
            os.write(report, _NUMBER.pack(pid))
            ended = os.pidfd_open(pid)
            running[ended] = pid, report
            poll.register(ended, select.POLLIN)


def _become(order: bytes, files: list[int]) -> str:
    """What was ordered, of this process; gives its program's name."""
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    program, arguments, environment, directory = orjson.loads(order)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    sys.orig_argv = [sys.executable, "-m", program, *arguments]  # an agent starts its next process so
    return str(program)


if __name__ == "__main__":
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()  # who forks then shares what is loaded, and need not look for garbage in it at its end
    importlib.import_module(_fork_all(socket.socket(fileno=os.dup(0)))).main()
