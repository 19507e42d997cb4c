"""Faults beside the traffic: an agent that is stopped for a while, clients that are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sentinel_wasm.client import request_headers
from sentinel_wasm.protocol.events import EventKind

from ..conftest import BuildWat, RunningAgent, StartAgent, until
from ..guest import wat
from ..load.clients import apart, follow_clock
from .footprint import footprint, footprint_like

RATE, SECONDS = 1000, 4
STOP_EVERY_S = 0.5
MIB = 1024 * 1024
KILLED = 8
GROWTH_MIB = 16

QUICK = wat.module(wat.says('{"decision":"allow","tags":["module"]}'))

# Sends the handshake and half a body chunk of 10 MiB, says so, and waits to be killed.
HALF_A_FRAME = """
import sys, time
from pathlib import Path
from sentinel_wasm.client import ClientV2
client = ClientV2(Path(sys.argv[1]))
client.send((10 * 1024 * 1024 + 1).to_bytes(4, "big") + b"\\x11" + bytes(5 * 1024 * 1024))
print("half", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("stopped_ms", [30, 200])
def test_agent_that_was_stopped_answers_everything_once(
    start_agent: StartAgent, build_wat: BuildWat, stopped_ms: int
) -> None:
    """As by a busy hypervisor or a debugger: what waited may be late, but is answered."""
    agent = start_agent(build_wat(QUICK), "--timeout-ms", "40")
    with apart() as submit:
        future = submit(follow_clock, agent.socket, RATE, SECONDS)
        stops = 0
        while not future.done():
            time.sleep(STOP_EVERY_S)
            agent.process.send_signal(signal.SIGSTOP)
            time.sleep(stopped_ms / 1000)
            agent.process.send_signal(signal.SIGCONT)
            stops += 1
        run = future.result()
    assert stops >= 4
    assert run.wrong == []
    assert run.unanswered() == 0
    assert run.waits_ms()[-1] >= stopped_ms / 2
    assert_healthy(agent)


def test_clients_killed_in_a_large_frame_leave_nothing_behind(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    agent = start_agent(build_wat(QUICK))
    assert_healthy(agent)
    kill_clients_in_a_frame(agent)  # malloc has seen such frames now
    time.sleep(0.5)
    before = footprint(agent)
    kill_clients_in_a_frame(agent)
    after = footprint_like(agent, before, GROWTH_MIB)
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads
    assert after.rss_mib <= before.rss_mib + GROWTH_MIB
    until(lambda: agent.times_said("client gone in the middle of a frame") == 2 * KILLED)


def kill_clients_in_a_frame(agent: RunningAgent) -> None:
    clients = [half_a_frame(agent.socket) for _ in range(KILLED)]
    try:
        for client in clients:
            assert client.stdout is not None
            assert client.stdout.readline() == b"half\n"
        assert_healthy(agent)
        open_now = footprint(agent).descriptors
    finally:
        for client in clients:
            client.kill()
            client.communicate()
    end = time.monotonic() + 10
    while footprint(agent).descriptors > open_now - KILLED and time.monotonic() < end:
        time.sleep(0.01)
    assert_healthy(agent)


def half_a_frame(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", HALF_A_FRAME, str(path)], stdout=subprocess.PIPE)


def assert_healthy(agent: RunningAgent) -> None:
    """Both protocols are answered by the module."""
    with agent.v1() as old, agent.v2() as new:
        for client in (old, new):
            answer = client.ask(EventKind.REQUEST_HEADERS, request_headers("healthy"))
            assert answer["audit"]["tags"] == ["module"]
