"""Frames in plain Python: the client's side, and what `_fastpath.FrameBuffer` must agree with.

v1: u32 big-endian length, then as many bytes of JSON. v2: u32 length (counts the type byte), u8 type,
payload. agent-protocol.md, sections 1 to 3.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from sentinel_wasm.errors import FrameError

MAX_V1 = 10 * 1024 * 1024
MAX_V2 = 16 * 1024 * 1024

_LENGTH = struct.Struct(">I")
_HEAD_V2 = struct.Struct(">IB")
_JSON_START = b"{ \t\n\r"


class FrameType(IntEnum):
    """v2's type byte."""

    HANDSHAKE_REQUEST = 0x01
    HANDSHAKE_RESPONSE = 0x02
    REQUEST_HEADERS = 0x10
    REQUEST_BODY_CHUNK = 0x11
    RESPONSE_HEADERS = 0x12
    RESPONSE_BODY_CHUNK = 0x13
    REQUEST_COMPLETE = 0x14
    WEBSOCKET_FRAME = 0x15
    GUARDRAIL_INSPECT = 0x16
    CONFIGURE = 0x17
    AGENT_RESPONSE = 0x20
    HEALTH_STATUS = 0x30
    METRICS_REPORT = 0x31
    CONFIG_UPDATE_REQUEST = 0x32
    FLOW_CONTROL = 0x33
    CANCEL = 0x40
    PING = 0x41
    PONG = 0x42


def encode_v1(payload: bytes) -> bytes:
    return _LENGTH.pack(len(payload)) + payload


def encode_v2(frame_type: int, payload: bytes) -> bytes:
    return _HEAD_V2.pack(len(payload) + 1, frame_type) + payload


class FrameReader:
    """Cuts a stream into frames.

    `protocol` is 0 until five bytes are here, then 1 or 2; byte 4 decides (section 1).
    """

    def __init__(self, protocol: int = 0) -> None:
        self.protocol = protocol
        self.frame_type = 0
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def unread(self) -> int:
        return len(self._buffer)

    def take_unread(self) -> bytes:
        """What has come behind the last frame."""
        unread = bytes(self._buffer)
        self._buffer.clear()
        return unread

    def next_frame(self) -> bytes | None:
        """The next whole frame's payload, or None; sets `frame_type` on v2.

        Raises FrameError where the length or the first byte is not allowed.
        """
        buffer = self._buffer
        if len(buffer) < 4:
            return None
        (length,) = _LENGTH.unpack_from(buffer)
        most = MAX_V1 if self.protocol == 1 else MAX_V2
        if not 0 < length <= most:
            raise FrameError(f"a frame of {length} bytes: allowed are 1 to {most}")
        if self.protocol == 0:
            if len(buffer) < 5:
                return None
            if buffer[4] == FrameType.HANDSHAKE_REQUEST:
                self.protocol = 2
            elif buffer[4] in _JSON_START:
                self.protocol = 1
                return self.next_frame()
            else:
                raise FrameError(
                    f"the first frame begins with byte 0x{buffer[4]:02x}:"
                    " neither JSON (v1) nor a handshake (v2)"
                )
        if len(buffer) < 4 + length:
            return None
        if self.protocol == 2:
            self.frame_type = buffer[4]
        payload = bytes(buffer[5 if self.protocol == 2 else 4 : 4 + length])
        del buffer[: 4 + length]
        return payload
