"""Inputs that are a byte stream and how it is cut: a count, as many sizes of one byte, then the stream."""

from __future__ import annotations

import random
from itertools import pairwise

from sentinel_wasm.protocol.frames import encode_v1, encode_v2
from tests.normalising import captured_v1, captured_v2

from . import documents
from .targets import Change

_CUTS = 15
_HANDSHAKE = encode_v2(1, b'{"supported_versions":[2],"proxy_id":"p","proxy_version":"1","config":null}')


def head_and_stream(data: bytes) -> tuple[bytes, bytes]:
    length = 1 + (data[0] & _CUTS) if data else 0
    return data[:length], data[length:]


def pieces(head: bytes, stream: bytes) -> list[bytes]:
    """The stream as reads: of 0 to 127 bytes, or of up to 64 KiB; what the head does not cut comes last."""
    sizes = [size if size < 128 else (size - 127) * 512 for size in head[1:]]
    places = [0]
    for size in sizes:
        places.append(min(places[-1] + size, len(stream)))
    return [stream[a:b] for a, b in pairwise([*places, len(stream)])]


def captured_streams() -> list[bytes]:
    """Each captured event alone on a connection, and some together."""
    v2 = [encode_v2(*frame) for frame in captured_v2() if frame[0] != 1]
    v1 = [encode_v1(payload) for payload in captured_v1()]
    other = [
        encode_v2(kind, b'{"correlation_id":"c","data":"aGk=","is_last":true,"chunk_index":1}')
        for kind in range(0x10, 0x18)
    ]
    control = [encode_v2(kind, b"{}") for kind in (0x40, 0x41, 0x42)]
    together = [b"".join(v1[:3]), _HANDSHAKE + b"".join(v2[:3]), _HANDSHAKE + b"".join(other + control)]
    return together + v1 + [_HANDSHAKE + frame for frame in v2 + other + control]


def mutate(data: bytes, limit: int, seed: int, change: Change) -> bytes:
    """Changes one frame and mends its length, so that what is inside is reached; now and then anything."""
    pick = random.Random(seed)
    head, stream = head_and_stream(data)
    frames, tail = _split(stream)
    if not frames or pick.randrange(5) == 0:
        return change(data, limit)
    at = pick.randrange(len(frames))
    room = max(1, limit - len(data) + len(frames[at]))
    match pick.randrange(8):
        case 0:
            frames.insert(at, pick.choice(frames))
        case 1:
            del frames[at]
        case 2:
            other = pick.randrange(len(frames))
            frames[at], frames[other] = frames[other], frames[at]
        case _:
            frames[at] = _frame(frames[at], pick) or change(frames[at], room)
    made = head + b"".join(map(encode_v1, frames)) + tail
    return made[:limit]


def _frame(frame: bytes, pick: random.Random) -> bytes | None:
    """A v1 frame is a document; a v2 frame has its type before it."""
    start = 0 if frame[:1] == b"{" else 1
    made = documents.changed(frame[start:], pick)
    return None if made is None else frame[:start] + made


def _split(stream: bytes) -> tuple[list[bytes], bytes]:
    """The whole frames' contents (v2: with the type byte), and what is left."""
    frames = []
    at = 0
    while len(stream) - at >= 4:
        length = int.from_bytes(stream[at : at + 4], "big")
        if at + 4 + length > len(stream):
            break
        frames.append(stream[at + 4 : at + 4 + length])
        at += 4 + length
    return frames, stream[at:]
