"""A client that does not read its answers costs the agent a bounded memory, and others nothing."""

from __future__ import annotations

import contextlib
import statistics
import time
from itertools import count

import orjson
import pytest

from sentinel_wasm.client import ClientV2, event_v2, request_headers
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType

from ..conftest import BuildWat, RunningAgent, StartAgent
from ..guest import wat

CLIENTS = 4
MIB = 1024 * 1024
BATCH = 100
MOST_SENT = 16 * MIB  # a client that got rid of this much is being read
STUCK_S = 0.5
QUICK_S = 0.05
ASKED = 50

# How the agent may be started, and by how many MiB it may grow then: the promise holds for each. On workers
# up to 1,024 events wait, each with room for what its guest may say; with instances of their own, 256 of them
# are made there (22 to 31 MiB were seen). By itself `auto` may go over to workers at any time.
OPTIONS: list[tuple[list[str], int]] = [
    ([], 16),
    (["--dispatch", "inline"], 16),
    (["--dispatch", "threads"], 16),
    (["--isolation", "request", "--dispatch", "inline"], 16),
    (["--isolation", "request", "--dispatch", "threads"], 48),
]


class Greedy:
    """Sends numbered events until the agent takes no more; reads when it is told to."""

    def __init__(self, agent: RunningAgent) -> None:
        self.client = agent.v2()
        self.events = 0
        self.sent_bytes = 0

    def send_until_stuck(self) -> None:
        self.client.sock.settimeout(STUCK_S)
        numbers = count()
        rest = b""
        with contextlib.suppress(TimeoutError):
            while True:
                assert self.sent_bytes < MOST_SENT
                frames = [_event(f"event-{next(numbers)}") for _ in range(BATCH)]
                self.events += BATCH
                rest = b"".join(frames)
                while rest:
                    sent = self.client.sock.send(rest)
                    self.sent_bytes += sent
                    rest = rest[sent:]
        self._rest = rest

    def read_all(self) -> list[str]:
        """The ids of the answers in the order in which they came, once the last event is sent too."""
        ids: list[str] = []
        self.client.sock.settimeout(10)
        while len(ids) < self.events:
            if self._rest:
                # What was stuck goes out as the agent begins to read again.
                self.client.sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    self._rest = self._rest[self.client.sock.send(self._rest) :]
                self.client.sock.settimeout(10)
            ids.append(_answered(self.client))
        return ids


def _event(name: str) -> bytes:
    return event_v2(EventKind.REQUEST_HEADERS, request_headers(name))


def _answered(client: ClientV2) -> str:
    """The id of the next answer; what the agent says of itself between them is passed over."""
    while True:
        payload = client.receive()
        if client.frame_type == FrameType.AGENT_RESPONSE:
            return str(orjson.loads(payload)["audit"]["custom"]["correlation_id"])


def _median_s(agent: RunningAgent) -> float:
    took_s = []
    with agent.v2() as client:
        for number in range(ASKED):
            start = time.monotonic()
            client.send_event(EventKind.REQUEST_HEADERS, request_headers(f"other-{number}"))
            assert _answered(client) == f"other-{number}"
            took_s.append(time.monotonic() - start)
    return statistics.median(took_s)


@pytest.mark.parametrize(("options", "growth_mib"), OPTIONS, ids=str)
def test_client_that_does_not_read_is_not_read_from(
    start_agent: StartAgent, build_wat: BuildWat, options: list[str], growth_mib: int
) -> None:
    agent = start_agent(build_wat(wat.module(wat.says('{"decision":"allow"}'))), *options)
    _median_s(agent)
    before = agent.rss_mib()
    clients = [Greedy(agent) for _ in range(CLIENTS)]
    try:
        for client in clients:
            client.send_until_stuck()
        assert _median_s(agent) < QUICK_S
        assert agent.rss_mib() < before + growth_mib
        for client in clients:
            ids = client.read_all()
            assert sorted(ids) == sorted(f"event-{number}" for number in range(client.events))
            client.client.sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                _answered(client.client)
    finally:
        for client in clients:
            client.client.close()
