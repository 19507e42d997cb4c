"""A message over gRPC: what the compiled way takes is read and answered as by protobuf's library."""

from __future__ import annotations

import random
import time

from sentinel_wasm._protobuf import HeaderAnswers, header_event
from sentinel_wasm.errors import EventError
from sentinel_wasm.grpc import agent_pb2 as pb
from sentinel_wasm.grpc import events
from sentinel_wasm.grpc.answers import Answers, _varint, message_of
from sentinel_wasm.protocol import answers
from tests.guest import wat

from . import serving
from .targets import Change, Target

_HAS_LENGTH = 2  # a wire type
_MODULE = wat.module(
    wat.says('{"decision":"block","status":429,"tags":["a"]}'),
    wat.says('{"decision":"allow","reason_codes":["é"]}', "on_response_headers", at=20_000),
)


def plainly(data: bytes) -> events.Event | None:
    """By protobuf's own library; None: it is no header event that can be answered."""
    try:
        message = events.parse(data, pb.ProxyToAgent)
        name = message.WhichOneof("message")
        return events.event_of(name, message) if name in ("request_headers", "response_headers") else None
    except EventError:
        return None


def run(data: bytes) -> None:
    plain = plainly(data)
    assert header_event(data) in (None, plain)
    quick = HeaderAnswers()
    agent = serving.agent(_MODULE)
    found = quick.answer(data, agent.quick, time.monotonic_ns())
    if found is None:
        return
    assert plain is not None
    assert type(found) is tuple
    frame_type, identity, payload = plain
    answer = agent.answer_v2(frame_type, payload, time.monotonic_ns(), lambda identity, answer: None)
    assert answer is not None
    whole = answers.with_no_id(found[1])
    assert (found[0], whole) == (identity, answers.without_correlation_id(answer, identity))
    encoded = Answers().encoded(whole)
    quick.keep(found[1], encoded.rest)
    assert quick.answer(data, agent.quick, time.monotonic_ns()) == message_of(encoded, identity)


def seeds() -> list[bytes]:
    metadata = pb.RequestMetadata(
        correlation_id="id-1", request_id="r", client_ip="192.0.2.7:1", client_port=1, route_id="a"
    )
    headers = [pb.Header(name=name, value='"a" \\') for name in ("accept", "accept", "cookie")]
    made = [
        pb.ProxyToAgent(
            request_headers=pb.RequestHeadersEvent(
                metadata=metadata, method="GET", uri="/?a", http_version="HTTP/1.1", headers=headers
            )
        ),
        pb.ProxyToAgent(
            response_headers=pb.ResponseHeadersEvent(correlation_id="id-1", status_code=200, headers=headers)
        ),
        pb.ProxyToAgent(ping=pb.Ping(sequence=1)),
    ]
    return [message.SerializeToString() for message in made]


def mutate(data: bytes, limit: int, seed: int, change: Change) -> bytes:
    """Changes one field and mends the lengths around it, so that what is inside is reached."""
    return _bent(data, limit, random.Random(seed), change)[:limit]


def _bent(data: bytes, limit: int, pick: random.Random, change: Change) -> bytes:
    fields = _fields(data)
    if not fields or pick.randrange(5) == 0:
        return change(data, limit)
    at = pick.randrange(len(fields))
    tag, content = fields[at]
    match pick.randrange(6):
        case 0:
            fields.insert(at, pick.choice(fields))
        case 1:
            del fields[at]
        case 2:
            fields[at] = pick.randrange(256), content
        case _:
            room = max(1, limit - len(data) + len(content))
            fields[at] = tag, _bent(content, room, pick, change)
    return b"".join(map(_written, fields))


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """(tag, content) of a message's fields; none where it is no message."""
    found, at = [], 0
    try:
        while at < len(data):
            tag, at = _number(data, at)
            start = at
            size, at = _number(data, at)
            if tag & 7 == _HAS_LENGTH:
                start, at = at, at + size
            found.append((tag, data[start:at]))
    except IndexError:
        return []
    return found if at == len(data) else []


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1


def _written(field: tuple[int, bytes]) -> bytes:
    tag, content = field
    return _varint(tag) + (_varint(len(content)) if tag & 7 == _HAS_LENGTH else b"") + content


TARGET = Target(run, seeds, mutate)
