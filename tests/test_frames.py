"""Framing: the compiled FrameBuffer against the plain FrameReader, on streams split anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel_wasm._fastpath import FrameBuffer
from sentinel_wasm.errors import FrameError
from sentinel_wasm.protocol import frames
from sentinel_wasm.protocol.frames import FrameReader, encode_v1, encode_v2

pytestmark = pytest.mark.parallel

HANDSHAKE = encode_v2(1, b"{}")


def feed(reader: FrameReader | FrameBuffer, data: bytes) -> None:
    """Give bytes as a socket would: to the buffer, in reads of what it has room for."""
    if isinstance(reader, FrameReader):
        reader.feed(data)
        return
    while data:
        with memoryview(reader) as room:
            size = min(len(room), len(data))
            room[:size] = data[:size]
        reader.received(size)
        data = data[size:]


def read_all(reader: FrameReader | FrameBuffer, pieces: list[bytes]) -> Iterator[object]:
    """What comes out of a stream: after each piece its frames, an error, and what is left unread."""
    for piece in pieces:
        feed(reader, piece)
        try:
            while (payload := reader.next_frame()) is not None:
                yield reader.protocol, reader.frame_type if reader.protocol == 2 else None, payload
        except FrameError as error:
            yield str(error)
            return
        yield reader.unread


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


v1_frames = st.binary(max_size=300).map(lambda body: encode_v1(b"{" + body))
v2_frames = st.tuples(st.integers(0, 255), st.binary(max_size=300)).map(lambda frame: encode_v2(*frame))
streams = st.one_of(
    st.lists(v1_frames, max_size=8).map(b"".join),
    st.lists(v2_frames, max_size=8).map(lambda many: HANDSHAKE + b"".join(many)),
    st.binary(max_size=64),
    st.tuples(st.lists(v1_frames, max_size=3).map(b"".join), st.binary(max_size=12)).map(b"".join),
    st.tuples(st.lists(v2_frames, max_size=3).map(b"".join), st.binary(max_size=12)).map(
        lambda parts: HANDSHAKE + b"".join(parts)
    ),
)


@given(streams, st.lists(st.integers(0, 4000), max_size=12))
@settings(max_examples=1000)
def test_both_cut_every_stream_alike_wherever_it_is_split(data: bytes, cuts: list[int]) -> None:
    pieces = pieces_of(data, cuts)
    assert list(read_all(FrameBuffer(), pieces)) == list(read_all(FrameReader(), pieces))


@pytest.fixture(params=[FrameBuffer, FrameReader])
def reader(request: pytest.FixtureRequest) -> FrameBuffer | FrameReader:
    made: FrameBuffer | FrameReader = request.param()
    return made


@pytest.mark.parametrize("first", [b"{", b" ", b"\t", b"\n", b"\r"])
def test_json_and_white_space_mean_v1(reader: FrameBuffer | FrameReader, first: bytes) -> None:
    feed(reader, encode_v1(first + b"}"))
    assert reader.next_frame() == first + b"}"
    assert reader.protocol == 1


def test_a_handshake_means_v2(reader: FrameBuffer | FrameReader) -> None:
    feed(reader, HANDSHAKE + encode_v2(0x41, b"ping"))
    assert reader.next_frame() == b"{}"
    assert (reader.protocol, reader.frame_type) == (2, 1)
    assert reader.next_frame() == b"ping"
    assert reader.frame_type == 0x41


@pytest.mark.parametrize("first", [b"\0", b"\2", b"\x10", b"G", b"[", b'"', b"\xff"])
def test_any_other_first_byte_is_refused(reader: FrameBuffer | FrameReader, first: bytes) -> None:
    feed(reader, encode_v1(first + b"}"))
    with pytest.raises(FrameError, match=f"byte 0x{first[0]:02x}"):
        reader.next_frame()


@pytest.mark.parametrize("start", [b"", encode_v1(b"{}"), HANDSHAKE])
@pytest.mark.parametrize("length", [0, 16 * 1024 * 1024 + 1, 2**32 - 1])
def test_a_length_that_is_not_allowed_is_refused_at_once(
    reader: FrameBuffer | FrameReader, start: bytes, length: int
) -> None:
    feed(reader, start + length.to_bytes(4, "big"))
    with pytest.raises(FrameError, match=f"a frame of {length} bytes"):
        list(iter(reader.next_frame, None))


def test_v1_stops_at_10_mib_and_v2_at_16(reader: FrameBuffer | FrameReader) -> None:
    feed(reader, encode_v1(b"{}") + (frames.MAX_V1 + 1).to_bytes(4, "big"))
    assert reader.next_frame() == b"{}"
    with pytest.raises(FrameError, match="allowed are 1 to 10485760"):
        reader.next_frame()


@pytest.mark.parametrize("size", [65_531, 65_532, 65_536, 1_000_000, frames.MAX_V2 - 1])
def test_a_large_frame_comes_whole_and_the_buffer_goes_back_to_its_calm_size(size: int) -> None:
    buffer = FrameBuffer()
    payload = bytes(range(256)) * (size // 256 + 1)
    feed(buffer, HANDSHAKE + encode_v2(0x11, payload[:size]))
    assert buffer.next_frame() == b"{}"
    assert buffer.next_frame() == payload[:size]
    with memoryview(buffer) as room:
        assert len(room) == 65_536


def test_a_client_that_only_announces_much_gets_no_memory() -> None:
    buffer = FrameBuffer()
    feed(buffer, frames.MAX_V2.to_bytes(4, "big") + b"\x01")
    assert buffer.next_frame() is None
    with memoryview(buffer) as room:
        assert len(room) < 65_536


def test_the_free_space_is_lent_once_only() -> None:
    buffer = FrameBuffer()
    with memoryview(buffer), pytest.raises(BufferError):
        memoryview(buffer)


def test_more_cannot_be_received_than_there_was_room_for() -> None:
    buffer = FrameBuffer()
    with pytest.raises(ValueError, match="more bytes"):
        buffer.received(65_537)
    with pytest.raises(ValueError, match="more bytes"):
        buffer.received(-1)
