"""WebSockets, as far as the tests of proxies go: a client, and frames that have at most 64 KiB (RFC 6455)."""

from __future__ import annotations

import base64
import io
import os
import socket
import struct
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE = 0, 1, 2, 8


class Frame(NamedTuple):
    opcode: int
    payload: bytes


def written(opcode: int, payload: bytes, *, fin: bool = True, mask: bool) -> bytes:
    head = bytes([opcode | (0x80 if fin else 0)])
    masked = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes([masked | len(payload)])
    elif len(payload) < 65_536:
        head += struct.pack(">BH", masked | 126, len(payload))
    else:
        head += struct.pack(">BQ", masked | 127, len(payload))
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def read(stream: io.BufferedIOBase) -> Frame | None:
    """The next frame; None where the other end has gone."""
    head = stream.read(2)
    if len(head) < 2:
        return None
    length = head[1] & 0x7F
    if length >= 126:
        (length,) = (
            struct.unpack(">H", stream.read(2)) if length == 126 else struct.unpack(">Q", stream.read(8))
        )
    key = stream.read(4) if head[1] & 0x80 else bytes(4)
    payload = stream.read(length)
    return Frame(head[0] & 0x0F, bytes(byte ^ key[index % 4] for index, byte in enumerate(payload)))


class WebSocket:
    """A client's, on a connection of its own."""

    def __init__(self, port: int, path: str = "/socket") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._stream = self._socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            "",
            "",
        )
        self._socket.sendall("\r\n".join(lines).encode())
        self.status = int(self._stream.readline().split()[1])
        while self._stream.readline().strip():
            pass

    def send(self, opcode: int, payload: bytes, *, fin: bool = True) -> None:
        self._socket.sendall(written(opcode, payload, fin=fin, mask=True))

    def receive(self) -> Frame | None:
        """The next frame; None where the proxy has cut the connection."""
        try:
            return read(self._stream)
        except ConnectionResetError:
            return None

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()
