"""A million events through one agent: memory stays where it was."""

from __future__ import annotations

import orjson
import pytest

from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.protocol.frames import FrameType, encode_v2

from .conftest import EXAMPLES, StartAgent

BATCH = 200
BATCHES = 5000
WARM = BATCHES // 10
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
        frames.append(encode_v2(FrameType.REQUEST_HEADERS, orjson.dumps(payload)))
    return b"".join(frames)


def exchange(client: ClientV2, data: bytes, answer_bytes: int) -> None:
    client.send(data)
    missing = BATCH * answer_bytes
    while missing:
        missing -= len(client.sock.recv(min(missing, MIB)))


def test_a_million_events_leave_memory_flat(
    start_agent: StartAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = start_agent(EXAMPLES / "c" / "security.wasm")
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
        print(
            f"\nRSS after {WARM * BATCH:,} events {before:.1f} MiB, after {BATCHES * BATCH:,} {after:.1f} MiB"
        )
    assert after - before < 2
