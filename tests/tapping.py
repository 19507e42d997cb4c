"""`sentinel-wasm record` as a process of its own, and what needs none."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
import pytest

from sentinel_wasm.cli import toolkit
from sentinel_wasm.client import ClientV1, ClientV2


def run_here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`sentinel-wasm` in this process, which takes a fraction of the time."""
    given = [str(argument) for argument in arguments]
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
        pytest.raises(SystemExit) as end,
    ):
        toolkit.main(given)
    assert isinstance(end.value.code, int)
    return subprocess.CompletedProcess(given, end.value.code, out.getvalue(), err.getvalue())


class RunningTap:
    """A tap at an agent's socket, ready for proxies; ended with the `with` block."""

    def __init__(self, agent: Path, to: Path, *options: str) -> None:
        self.file = to
        self.socket = agent.with_name(f"{agent.name}.tap")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sentinel_wasm.cli.toolkit", "record", agent, "--to", to, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.says = self.process.stdout.readline()
        self.summary = self.errors = ""
        if not self.says:
            raise AssertionError(f"no tap: {self.process.communicate()[1]}")

    def v1(self) -> ClientV1:
        return ClientV1(self.socket)

    def v2(self) -> ClientV2:
        return ClientV2(self.socket)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and give its exit status; `summary` and `errors` are what it says."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        if not self.summary:
            self.summary, self.errors = self.process.communicate(timeout=15)
        return self.process.returncode

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Of the file, but for its head."""
        return [orjson.loads(line) for line in self.file.read_bytes().splitlines()[1:]]

    def __enter__(self) -> RunningTap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
