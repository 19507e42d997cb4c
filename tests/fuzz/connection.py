"""Any bytes on a connection: one answer for each whole event, in the form a proxy reads, or a close."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from sentinel_wasm.errors import FrameError
from sentinel_wasm.guest.abi import HOOKS
from sentinel_wasm.protocol import events
from sentinel_wasm.protocol.frames import FrameReader, FrameType
from tests.guest import agent_response, wat

from . import serving, streams
from .targets import Target

_TABLE = 64  # where the results' places are
_TRAP = "(if (i32.eq (i32.and (local.get $n) (i32.const 15)) (i32.const 15)) (then unreachable))"
_PICK = "(i32.add (i32.const 64) (i32.shl (i32.and (local.get $n) (i32.const 15)) (i32.const 3)))"
_RESULTS: list[bytes] = [
    b'{"decision":"allow"}',
    b'{"decision":"allow","add_request_headers":{"X-A":["1","2"]},"remove_response_headers":["X-B"]}',
    b'{"decision":"block","status":429,"body":"no","tags":["t"],"confidence":0.5}',
    b'{"decision":"redirect","body":"https://example.com/"}',
    b'{"decision":"challenge","challenge_type":"js","challenge_params":{"n":1}}',
    b'{"decision":"allow","request_body_mutation":{"action":"replace","data":"new"},"needs_more":true}',
    b'{"decision":"allow","response_body_mutation":{"action":"drop"},"routing_metadata":{"a":1}}',
    b'{"error":"refused"}',
    b"",
    b"not JSON",
    b'{"decision":"\xff"}',
    b'{"decision":"maybe"}',
]


def _module() -> str:
    """All hooks; the input's length chooses the result, a place outside the memory, or a trap."""
    places = []
    at = wat.RESULT
    for result in _RESULTS:
        places.append(at << 32 | len(result))
        at += len(result)
    places += [2**64 - 1, 0xFFFF << 32 | 10, 1 << 32 | 2**21]
    table = b"".join(place.to_bytes(8, "little") for place in places)
    body = f"{_TRAP} (i64.load {_PICK})"
    # The empty configuration, which every instance gets at its start, is 13 bytes long.
    empty = "(i32.lt_u (local.get $n) (i32.const 20))"
    refusing = f"(if (result i64) {empty} (then (i64.const 0)) (else {body}))"
    hooks = [wat.hook(refusing if name == "on_configure" else body, name) for name in HOOKS]
    # The input lies behind the results, and the memory grows to hold it.
    alloc = """(loop $more (if (i32.lt_u (i32.mul (memory.size) (i32.const 65536))
        (i32.add (i32.const 32768) (local.get $n))) (then (drop (memory.grow (i32.const 1))) (br $more))))
        (i32.const 32768)"""
    data = [wat.data(_TABLE, table), wat.data(wat.RESULT, b"".join(_RESULTS))]
    return wat.module(*data, *hooks, alloc=alloc)


_MODULE = _module()


@dataclass(frozen=True)
class Answer:
    """What one whole frame must get, or what was written. `may_close`: or the connection ends there.

    `identity` is None over v1; `payload` is a Pong's, or that of an event without an id to answer to.
    """

    kind: int = FrameType.AGENT_RESPONSE
    version: int = 2
    identity: str | None = None
    payload: bytes = b""
    may_close: bool = False

    @property
    def is_to_event(self) -> bool:
        return self.kind == FrameType.AGENT_RESPONSE


def expected(stream: bytes) -> Iterator[Answer | None]:
    """For each whole frame what the proxy may expect; None where the connection must be closed."""
    reader = FrameReader()
    reader.feed(stream)
    shaken = False
    while True:
        try:
            payload = reader.next_frame()
        except FrameError:
            yield None
            return
        if payload is None:
            return
        if reader.protocol == 1:
            yield Answer(version=_version(payload))
        elif not shaken:
            shaken = True
            yield from _handshake(payload)
        elif 0x10 <= reader.frame_type < 0x20:
            yield _event(payload)
        elif reader.frame_type == FrameType.PING:
            yield Answer(FrameType.PONG, payload=payload)
        elif reader.frame_type not in (FrameType.PONG, FrameType.CANCEL):
            yield None
            return


def _loads(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None


def _version(payload: bytes) -> int:
    request = _loads(payload)
    asked = request.get("version") if isinstance(request, dict) else None
    return asked if type(asked) is int and 0 <= asked < 2**32 else 1


def _handshake(payload: bytes) -> Iterator[Answer | None]:
    request = _loads(payload)
    versions = request.get("supported_versions") if isinstance(request, dict) else None
    if not isinstance(versions, list):
        yield None
        return
    yield Answer(FrameType.HANDSHAKE_RESPONSE)
    if 2 not in versions:
        yield None


def _event(payload: bytes) -> Answer:
    identity = events.correlation_id(_loads(payload))
    # What is broken may still be answered, to an id that stands in it; an empty id is as good as none.
    if identity:
        return Answer(identity=identity)
    return Answer(identity=identity, payload=payload, may_close=True)


def run(data: bytes) -> None:
    """The first byte says, beside the number of cuts, which dispatch and isolation."""
    head, stream = streams.head_and_stream(data)
    wire = serving.exchange(_MODULE, streams.pieces(head, stream), head[0] >> 4 if head else 0)
    written = FrameReader(0 if wire.written[4:5] == b"{" else 2)
    written.feed(wire.written)
    found = _answers(written)
    assert written.unread == 0
    wanted = list(expected(stream))
    if not wire.closed:
        assert _fits(wanted, found, 0), f"{found} where {wanted} was expected"
        return
    # What a worker has when its connection closes is answered to nobody.
    ends = [index for index, one in enumerate(wanted) if one is None or one.may_close]
    assert any(_fits(wanted[:end], found, wire.dropped) for end in ends), f"{found} and a close for {wanted}"


def _answers(written: FrameReader) -> list[Answer]:
    """What was written, but for the agent's state of health."""
    found = []
    while (payload := written.next_frame()) is not None:
        kind = FrameType.AGENT_RESPONSE if written.protocol == 1 else written.frame_type
        if kind == FrameType.AGENT_RESPONSE:
            response = agent_response.check(payload)
            reasons = response["audit"]["reason_codes"]
            assert not any(reason.startswith("internal error") for reason in reasons), reasons
            identity = response["audit"]["custom"].get("correlation_id")
            found.append(Answer(kind, response["version"], identity))
        elif kind == FrameType.HANDSHAKE_RESPONSE:
            assert type(orjson.loads(payload)["success"]) is bool
            found.append(Answer(kind))
        elif kind != FrameType.HEALTH_STATUS:
            found.append(Answer(kind, payload=payload))
    return found


def _fits(wanted: list[Answer | None], found: list[Answer], dropped: int) -> bool:
    """Whether each frame has its answer, but for so many events; over v2 theirs come in any order."""
    if None in wanted:
        return False
    asked = [one for one in wanted if one is not None]
    if [one for one in asked if not one.is_to_event] != [one for one in found if not one.is_to_event]:
        return False
    asked = [one for one in asked if one.is_to_event]
    found = [one for one in found if one.is_to_event]
    if all(one.identity is None and not one.may_close for one in asked):
        return asked == found
    # Those that can be for one event alone come first.
    for answer in sorted(found, key=lambda one: -len(one.identity or "")):
        event = next((one for one in asked if one.identity == answer.identity), None)
        event = event or next((one for one in asked if one.may_close and _stands_in(answer, one)), None)
        if event is None or answer.version != event.version:
            return False
        asked.remove(event)
    return len(asked) == dropped


def _stands_in(answer: Answer, event: Answer) -> bool:
    return answer.identity is not None and answer.identity.encode() in event.payload


def seeds() -> list[bytes]:
    together = streams.captured_streams()[:3]
    found = [b"\0" + stream for stream in streams.captured_streams()]
    found += [bytes([mode << 4]) + stream for mode in range(1, len(serving.MODES)) for stream in together]
    return [*found, *(b"\3\1\4\5" + stream for stream in together)]


TARGET = Target(run, seeds, streams.mutate)
