"""The log on a terminal: what modules say is shown, not obeyed."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind

from .conftest import BuildWat
from .guest import wat

# Clears the screen and writes a line of its own into the log.
FORGERY = b"\x1b[2J\x1b[31mforged"


def test_guest_cannot_command_the_terminal(build_wat: BuildWat, tmp_path: Path) -> None:
    logs = wat.module(
        wat.data(2048, FORGERY),
        wat.hook(f"(call $log (i32.const 3) (i32.const 2048) (i32.const {len(FORGERY)})) (i64.const 0)"),
        imports=wat.imported("sentinel.log", "i32 i32 i32"),
    )
    ours, theirs = pty.openpty()
    socket = tmp_path / "s"
    command = [sys.executable, "-m", "sentinel_wasm.cli.agent", "--socket", str(socket)]
    agent = subprocess.Popen([*command, "--module", str(build_wat(logs))], stderr=theirs)
    os.close(theirs)
    try:
        shown = read_until(ours, b"listening")
        with ClientV2(socket) as client:
            client.ask(EventKind.REQUEST_HEADERS, request_headers("id"))
        shown = read_until(ours, b"forged")
    finally:
        agent.terminate()
        assert agent.wait(10) == 0
        os.close(ours)
    assert rb"\x1b[2J\x1b[31mforged" in shown
    assert FORGERY not in shown


def read_until(terminal: int, text: bytes) -> bytes:
    shown = b""
    end = time.monotonic() + 30
    while text not in shown:
        assert time.monotonic() < end, shown
        shown += os.read(terminal, 4096)
    return shown
