"""Events that waited where the agent could not see it: while the process was stopped, or had no time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from sentinel_wasm.client import ClientV1, ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.server.clock import BEAT_MS

from .conftest import EXAMPLES, RunningAgent, StartAgent, idle_seconds, until
from .scraping import LOCAL, Scraped


def answered_after_stop(agent: RunningAgent, client: ClientV1 | ClientV2, stopped_s: float) -> bool:
    """Whether an event that is sent while the agent is stopped is answered afterwards."""
    agent.process.send_signal(signal.SIGSTOP)
    try:
        client.send_event(EventKind.REQUEST_HEADERS, request_headers("late"))
        time.sleep(stopped_s)
    finally:
        agent.process.send_signal(signal.SIGCONT)
    try:
        client.receive()
    except ConnectionError:
        return False
    return True


@pytest.fixture
def agent(start_agent: StartAgent) -> RunningAgent:
    return start_agent(EXAMPLES / "c" / "security.wasm", "--proxy-timeout-ms", "150", *LOCAL)


@pytest.mark.parametrize("first", [True, False], ids=["first event", "later event"])
def test_v1_event_that_waited_while_the_agent_was_stopped_is_not_answered(
    agent: RunningAgent, first: bool
) -> None:
    with agent.v1() as client:
        if first:
            until(lambda: Scraped(agent).value("connections_accepted_total") == 1)
        else:
            client.ask(EventKind.REQUEST_HEADERS, request_headers("in time"))
        assert not answered_after_stop(agent, client, 0.4)
    assert "a v1 proxy waits 150" in agent.wait_for_log("connection closed")


def test_v2_event_that_waited_is_answered(agent: RunningAgent) -> None:
    with agent.v2() as client:
        assert answered_after_stop(agent, client, 0.4)


def test_v1_connection_that_is_idle_costs_next_to_nothing(agent: RunningAgent) -> None:
    with agent.v1() as client:
        # 0.5% of a core, or what waking so often takes on this machine, in whatever process.
        used = idle_seconds(agent, client, 2, few=0.01)
        assert used <= 0.01 or used <= 1.5 * beating_seconds(2)


def beating_seconds(seconds: float) -> float:
    """What a bare event loop uses of the processor in so much time, whose timer beats as the agent's does."""
    code = f"""
import time, uvloop, asyncio
async def beat():
    began = time.process_time()
    for _ in range({int(seconds * 1000 / BEAT_MS)}):
        await asyncio.sleep({BEAT_MS / 1000})
    print(time.process_time() - began)
uvloop.run(beat())
"""
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
