"""What stands in for memfd_create and /proc where they are not, as on macOS, on whatever system this is."""

from __future__ import annotations

import os
import socket
import stat
import sys
import time
from pathlib import Path

import pytest

from sentinel_wasm.agent import Agent
from sentinel_wasm.bench import processes
from sentinel_wasm.bench.machine import this_machine
from sentinel_wasm.guest.artefact import Artefact
from sentinel_wasm.guest.cache import NO_CACHE
from sentinel_wasm.guest.engine import engine_for
from sentinel_wasm.guest.module import Module
from sentinel_wasm.server import handover, usage
from sentinel_wasm.server.nameless import nameless, seal
from sentinel_wasm.settings import Settings

from .reloading import FIRST

pytestmark = pytest.mark.parallel

SETTINGS = Settings(module=Path("filter.wasm"))


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "elsewhere")


def test_a_file_without_a_name_is_nobody_elses() -> None:
    with os.fdopen(nameless("a"), "w+b") as file:
        seal(file.fileno())
        status = os.fstat(file.fileno())
        assert (status.st_nlink, stat.S_IMODE(status.st_mode)) == (0, 0o600)
        assert not os.get_inheritable(file.fileno())


def test_a_connection_goes_over_in_one() -> None:
    unread = b"x" * 1_000_000
    ours, theirs = socket.socketpair()
    given, client = socket.socketpair()
    with ours, theirs, given, client:
        handover.send(ours, handover.ASK, {"format": 1})
        handover.send(ours, handover.CONNECTION, {"a": "ü"}, given.fileno(), unread=unread)
        ours.send(handover.TAKEN)
        assert handover.receive(theirs) == (handover.ASK, {"format": 1}, [], b"")
        message = handover.receive(theirs)
        assert message is not None
        assert (message.kind, message.says, message.unread) == (handover.CONNECTION, {"a": "ü"}, unread)
        assert handover.receive(theirs) == (handover.TAKEN, {}, [], b"")
        with message.sockets[0] as sock:
            assert not sock.get_inheritable()
            sock.send(b"here")
        assert client.recv(9) == b"here"


def test_a_compiled_module_is_loaded_from_one() -> None:
    """Twice, as workers do, which share its position."""
    engine = engine_for(SETTINGS)
    with os.fdopen(nameless("artefact"), "wb") as file:
        file.write(NO_CACHE.module(engine, FIRST)[0].serialize())
        file.flush()
        for _ in range(2):
            module = Module(engine, FIRST, "filter.wasm", Artefact(file.fileno(), from_cache=False))
            Agent(SETTINGS, module).close()


def test_what_can_be_known_is_said() -> None:
    assert usage.samples()["process_open_fds"] == len(os.listdir("/dev/fd")) - 1
    assert 0 < time.time() - usage.started.__wrapped__() < 3600
    assert processes.family(os.getpid()) == []
    assert this_machine().cores >= 1
