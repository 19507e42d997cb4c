"""FrameBuffer against the plain FrameReader, on any stream, cut anywhere."""

from __future__ import annotations

from sentinel_wasm._fastpath import FrameBuffer
from sentinel_wasm.protocol.frames import FrameReader, encode_v1, encode_v2
from tests.test_frames import HANDSHAKE, read_all

from . import streams
from .targets import Target

_BUILT = 0x80  # in the first byte: the stream is made of sizes, for frames larger than inputs are
_MOST = 150_000


def run(data: bytes) -> None:
    head, stream = streams.head_and_stream(data)
    if head and head[0] & _BUILT:
        stream = _built(stream)
    reads = streams.pieces(head, stream)
    assert list(read_all(FrameBuffer(), reads)) == list(read_all(FrameReader(), reads))


def _built(orders: bytes) -> bytes:
    """Frames of up to 130 KB: three bytes each, the v2 type and half the size."""
    v2 = bool(orders) and bool(orders[0] & 1)
    stream = HANDSHAKE if v2 else b""
    for at in range(1, len(orders) - 2, 3):
        payload = b"{" + orders[at : at + 1] * (2 * int.from_bytes(orders[at + 1 : at + 3], "big"))
        stream += encode_v2(orders[at], payload) if v2 else encode_v1(payload)
        if len(stream) > _MOST:
            break
    return stream


def seeds() -> list[bytes]:
    found = [b"\0" + stream for stream in streams.captured_streams()]
    found += [b"\3\1\4\5" + stream for stream in streams.captured_streams()[:3]]
    found += [bytes([_BUILT | 4, 200, 255, 0, 255, v2, 1, 15, 66, 2, 0, 1, 3, 255, 255]) for v2 in (0, 1)]
    return [*found, b"\0\0\0\0\0", b"\0\xff\xff\xff\xff{", b"\0\0\0\0\1G", b"\0\1\0\0\1\1"]


TARGET = Target(run, seeds, streams.mutate)
