"""Many events, and many traps: memory stays where it was.

SOAK_EVENTS says how many of each (make soak: a million).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import orjson
import pytest

from sentinel_wasm._instances import live_stores
from sentinel_wasm.client import ClientV2, event_v2, request_headers
from sentinel_wasm.errors import GuestFault
from sentinel_wasm.guest.abi import ON_REQUEST_HEADERS
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.instance import Instance
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.output import GuestOutput
from sentinel_wasm.protocol.events import EventKind

from ..conftest import EXAMPLES, StartAgent, resident_mib
from ..guest import wat

EVENTS = int(os.environ.get("SOAK_EVENTS", "60000"))
WARM_EVENTS = EVENTS // 10
BATCH = 200
BATCHES = EVENTS // BATCH
WARM = WARM_EVENTS // BATCH
DISTINCT = 50
MIB = 1024 * 1024


def batch(number: int) -> bytes:
    """Events whose ids and addresses, and so answers, differ from other batches', but not in length."""
    frames = []
    for index in range(BATCH):
        identity = f"{number:04}-{index:04}"
        payload = request_headers(
            identity,
            uri=f"/products/{index:04}",
            headers={"user-agent": ["soak"], "accept": ["*/*"], "x-number": [f"{number:04}"]},
            client_ip=f"10.1{number:02}.1{index % 100:02}.1:4000",
        )
        frames.append(event_v2(EventKind.REQUEST_HEADERS, payload))
    return b"".join(frames)


def exchange(client: ClientV2, data: bytes, answer_bytes: int) -> None:
    client.send(data)
    missing = BATCH * answer_bytes
    while missing:
        answers = client.sock.recv(min(missing, MIB))
        assert answers, "the agent closed the connection"
        missing -= len(answers)


@pytest.mark.parametrize("isolation", ["pooled", "request"])
def test_events_leave_memory_flat(
    start_agent: StartAgent, capsys: pytest.CaptureFixture[str], isolation: str
) -> None:
    """The module has a hook for responses, which never come: no request ends properly."""
    agent = start_agent(EXAMPLES / "c" / "security.wasm", "--isolation", isolation)
    batches = [batch(number) for number in range(DISTINCT)]
    with agent.v2() as client:
        client.send(batches[0])
        answers = [client.receive() for _ in range(BATCH)]
        assert {orjson.loads(answer)["decision"] for answer in answers} == {"allow"}
        answer_bytes = len(answers[0]) + 5
        assert {len(answer) for answer in answers} == {answer_bytes - 5}
        before = 0.0
        for number in range(1, BATCHES):
            if number == WARM:
                before = agent.rss_mib()
            exchange(client, batches[number % DISTINCT], answer_bytes)
        after = agent.rss_mib()
    with capsys.disabled():
        print(f"\n{isolation}: RSS after {WARM_EVENTS:,} events {before:.1f} MiB, {EVENTS:,} {after:.1f} MiB")
    assert after - before < 2


def test_traps_leave_memory_flat(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its trap, its message and its store, started anew."""
    trapping = wat.binary(wat.module(wat.hook("unreachable")))
    instance = Instance(Module(make_engine(), trapping, "trapping.wasm"), Limits(), GuestOutput())
    stores = live_stores()
    before = 0.0
    for number in range(EVENTS):
        if number == WARM_EVENTS:
            before = resident_mib(Path("/proc/self"))
        instance.start_within(None, 10_000)
        with contextlib.suppress(GuestFault):
            instance.call(ON_REQUEST_HEADERS, b"{}", "id")
        assert not instance.usable
    after = resident_mib(Path("/proc/self"))
    instance.close()
    with capsys.disabled():
        print(f"\nRSS after {WARM_EVENTS:,} traps {before:.1f} MiB, after {EVENTS:,} {after:.1f} MiB")
    assert live_stores() == stores
    assert after - before < 2
