"""Body chunks the quick way beside the Python one: the same frames, or it leaves the event alone.

How they are read is compared by `fuzz.mutating`, with that of header events.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import pybase64
import pytest

from sentinel_wasm.client import request_headers

from . import mutations
from .fuzz import mutating
from .guest import wat
from .normalising import REQUEST_BODY as REQUEST
from .normalising import RESPONSE_BODY as RESPONSE
from .normalising import captured_chunks
from .quickly import Start, agents, in_python, quickly

pytestmark = pytest.mark.parallel

TAGGED = '{"decision":"allow","tags":["seen"],"response_body_mutation":null}'
BLOCKS = '{"decision":"block","status":413,"body":"too \\"much\\""}'
REPLACES = '{"decision":"allow","response_body_mutation":{"action":"replace","data":"é"},"tags":["b"]}'


def hooks(request: str, response: str) -> str:
    return wat.module(wat.says(request, "on_request_body"), wat.says(response, "on_response_body", at=20_000))


MODULES = {
    "no hook": wat.module(wat.hook("(i64.const 0)")),
    "nothing to say": wat.module(
        wat.hook("(i64.const 0)", "on_request_body"), wat.hook("(i64.const 0)", "on_response_body")
    ),
    "tags": hooks(TAGGED, TAGGED),
    "blocks": hooks(BLOCKS, BLOCKS),
    "replaces": hooks(TAGGED, REPLACES),
    "wrong": hooks('{"decision":"what"}', "no JSON"),
    "traps": wat.module(
        wat.hook("unreachable", "on_request_body"), wat.hook("unreachable", "on_response_body")
    ),
}
# What a module of these says needs no Python.
QUICK = ["no hook", "nothing to say", "tags"]


@pytest.fixture
def start() -> Iterator[Start]:
    with agents() as start:
        yield start


def event(frame_type: int = RESPONSE, **fields: Any) -> bytes:
    seen = "bytes_received" if frame_type == REQUEST else "bytes_sent"
    fields = {"data": "aGk=", "is_last": True, "total_size": 2, "chunk_index": 0, seen: 2, **fields}
    return orjson.dumps({"correlation_id": "id-1", **fields})


@pytest.mark.parametrize("echo", [True, False], ids=["echo", "no echo"])
@pytest.mark.parametrize("kind", MODULES)
def test_captured_chunks_have_the_same_frames(start: Start, kind: str, echo: bool) -> None:
    for frame_type, payload in captured_chunks():
        # A trap closes the quick way, so each has its own.
        quick, plain = (start(MODULES[kind], echo_response_bodies=echo, pool_size=1) for _ in range(2))
        frame = quickly(quick, frame_type, payload)
        assert frame is not None
        assert frame == in_python(plain, frame_type, payload)
        if kind != "traps":
            assert frame == quickly(quick, frame_type, payload)


@pytest.mark.parametrize("kind", QUICK)
def test_changed_chunks_have_the_same_frames(start: Start, kind: str) -> None:
    quick, plain = start(MODULES[kind]), start(MODULES[kind])
    pick = random.Random(mutating.SEED)
    sources = [(frame_type, mutations.parsed(payload)) for frame_type, payload in captured_chunks()]
    counts: Counter[bool] = Counter()
    for _ in range(3_000):
        frame_type, document = pick.choice(sources)
        payload = mutations.changed(document, pick)
        frame = quickly(quick, frame_type, payload)
        counts[frame is None] += 1
        where = f"{payload!r}, with NORMALISER_SEED={mutating.SEED}"
        assert frame is None or frame == in_python(plain, frame_type, payload), where
    assert min(counts.values()) > 500


@pytest.mark.parametrize("kind", ["no hook", "tags"])
def test_a_long_chunk_is_left_to_python(start: Start, kind: str) -> None:
    asked = start(MODULES[kind])
    longest = event(data="")
    data = pybase64.b64encode_as_string(bytes((65_536 - len(longest)) // 4 * 3))
    assert quickly(asked, RESPONSE, event(data=data)) == in_python(asked, RESPONSE, event(data=data))
    assert quickly(asked, RESPONSE, event(data=data + "AAAA")) is None


def test_what_a_chunk_becomes_may_be_longer_than_it(start: Start) -> None:
    """Each byte as six."""
    asked = start(MODULES["tags"])
    payload = event(data=pybase64.b64encode_as_string(b"\1" * 40_000))
    assert quickly(asked, RESPONSE, payload) == in_python(asked, RESPONSE, payload)


@pytest.mark.parametrize("kind", ["no hook", "tags", "blocks"])
def test_requests_that_have_their_own_instance_end_alike(
    start: Start, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = [
        (REQUEST, event(REQUEST, is_last=False)),
        (REQUEST, event(REQUEST)),
        (RESPONSE, event(is_last=False)),
        (RESPONSE, event()),
    ]
    ends = []
    for answer in (quickly, in_python):
        asked = start(MODULES[kind], isolation="request")
        ended: list[str] = []
        monkeypatch.setattr(asked.agent.links[0].pool, "forget", ended.append)
        ends.append([(answer(asked, *chunk), list(ended)) for chunk in chunks])
    assert ends[0] == ends[1]
    assert None not in [frame for frame, _ in ends[0]]


def test_no_room_for_another_request_is_overload(start: Start) -> None:
    asked = start(MODULES["tags"], isolation="request", request_instances=1)
    busy = asked.agent.links[0].pool._places.inline("busy", time.monotonic_ns()).guest
    busy.pending = 1  # as a worker's job counts
    frame = quickly(asked, REQUEST, event(REQUEST))
    assert frame is not None
    assert orjson.loads(frame[5:])["audit"]["tags"] == ["wasm-overload"]
    busy.pending = 0
    assert quickly(asked, REQUEST, event(REQUEST)) == in_python(asked, REQUEST, event(REQUEST))


def test_decisions_that_are_logged_are_left_to_python(start: Start) -> None:
    assert quickly(start(MODULES["tags"], log_decisions=1.0), RESPONSE, event()) is None


def test_chunks_have_the_instance_of_their_request(start: Start) -> None:
    """One instance is told from another by a counter that its other hook raises."""
    module = wat.module(
        wat.data(wat.RESULT, b'{"decision":"allow","tags":["0"]}'),
        wat.hook(
            f"(i32.store8 (i32.const {wat.RESULT + 29})"
            f" (i32.add (i32.load8_u (i32.const {wat.RESULT + 29})) (i32.const 1)))" + wat.returns(0, 0)
        ),
        wat.hook(wat.returns(wat.RESULT, 33), "on_request_body"),
    )
    asked = start(module, pool_size=4)
    for number in range(8):
        identity = f"id-{number}"
        tags = []
        for _ in range(2):
            frame = quickly(asked, REQUEST, event(REQUEST, correlation_id=identity))
            assert frame is not None
            tags.append(ord(orjson.loads(frame[5:])["audit"]["tags"][0]))
            quickly(asked, 0x10, orjson.dumps(request_headers(identity)))
        assert tags[1] == tags[0] + 1


def test_a_chunk_is_kept_for_the_page_as_in_python(start: Start) -> None:
    quick, plain = (start(MODULES["tags"], admin="127.0.0.1:1") for _ in range(2))
    assert quickly(quick, RESPONSE, event()) == in_python(plain, RESPONSE, event())
    rings = []
    for asked in (quick, plain):
        recent = asked.agent.counts.recent
        assert recent is not None
        entry = recent.since(0)
        assert b"aGk=" not in entry  # no body
        assert b'"tags":["seen"]' in entry
        rings.append(entry)
    assert len(rings[0]) == len(rings[1])


def test_a_defect_costs_the_chunk_alone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    asked = start(MODULES["blocks"])
    with monkeypatch.context() as patched:
        patched.setattr(asked.agent.links[0], "decision", broken)
        frame = quickly(asked, RESPONSE, event())
    assert frame is not None
    assert orjson.loads(frame[5:])["decision"]["block"]["status"] == 500
    blocked = quickly(asked, REQUEST, event(REQUEST))
    assert blocked is not None
    assert orjson.loads(blocked[5:])["decision"]["block"]["status"] == 413
