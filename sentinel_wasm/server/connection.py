"""One proxy's connection: frames in, answers out."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import orjson
import structlog

from sentinel_wasm._fastpath import FrameBuffer
from sentinel_wasm.agent import Agent
from sentinel_wasm.errors import FrameError, LateAnswerError, ProtocolError
from sentinel_wasm.protocol import handshake
from sentinel_wasm.protocol.frames import FrameType, encode_v1, encode_v2

_log = structlog.stdlib.get_logger("connection")

_EVENTS = range(0x10, 0x20)
_DRAINING = orjson.dumps({"state": 3})


class Connection(asyncio.BufferedProtocol):
    """Reads into a FrameBuffer, answers every whole frame of one read in one write.

    v1 and v2 are told apart by the first frame. A framing error closes this connection alone, and so does an
    answer that is too late for v1. While the client does not read its answers, nothing more is read from it.
    """

    def __init__(self, agent: Agent, proxy_timeout_ms: int, connections: set[Connection]) -> None:
        """`proxy_timeout_ms`: when a v1 proxy gives an event up."""
        self._agent = agent
        self._proxy_timeout_ns = proxy_timeout_ms * 1_000_000
        self._connections = connections
        self._frames = FrameBuffer()
        self._transport: asyncio.Transport
        self._shaken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        if self._frames.unread:
            _log.warning("client gone in the middle of a frame", unread_bytes=self._frames.unread)

    def get_buffer(self, sizehint: int) -> FrameBuffer:
        return self._frames

    def buffer_updated(self, nbytes: int) -> None:
        arrived_ns = time.monotonic_ns()
        self._frames.received(nbytes)
        out: list[bytes] = []
        try:
            while (payload := self._frames.next_frame()) is not None:
                if self._frames.protocol == 1:
                    self._on_v1(payload, arrived_ns, out)
                else:
                    self._on_v2(self._frames.frame_type, payload, arrived_ns, out)
        except ProtocolError as error:
            _log.error("connection closed", reason=str(error))
            self._write(out)
            self._transport.close()
            return
        self._write(out)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def drain(self) -> None:
        """Tell a v2 proxy that we stop, and close once what is written has been read."""
        if self._shaken:
            self._transport.write(encode_v2(FrameType.HEALTH_STATUS, _DRAINING))
        self._transport.close()

    def _write(self, out: list[bytes]) -> None:
        if out:
            self._transport.write(b"".join(out))

    def _on_v1(self, payload: bytes, arrived_ns: int, out: list[bytes]) -> None:
        answer = self._agent.answer_v1(payload, arrived_ns)
        took_ns = time.monotonic_ns() - arrived_ns
        if took_ns > self._proxy_timeout_ns:
            # The proxy would take it for the next request's answer (agent-protocol.md, section 2).
            took_ms, limit_ms = took_ns // 1_000_000, self._proxy_timeout_ns // 1_000_000
            raise LateAnswerError(f"an answer took {took_ms} ms, and a v1 proxy waits {limit_ms}")
        out.append(encode_v1(answer))

    def _on_v2(self, frame_type: int, payload: bytes, arrived_ns: int, out: list[bytes]) -> None:
        if not self._shaken:
            self._shake(frame_type, payload, out)
        elif frame_type in _EVENTS:
            answer = self._agent.answer_v2(frame_type, payload, arrived_ns)
            if answer is None:
                raise FrameError("an event without a readable correlation id cannot be answered")
            out.append(encode_v2(FrameType.AGENT_RESPONSE, answer))
        elif frame_type == FrameType.PING:
            out.append(encode_v2(FrameType.PONG, payload))
        elif frame_type not in (FrameType.PONG, FrameType.CANCEL):
            # A Cancel has nothing to stop: every event before it has been answered.
            raise FrameError(f"frame type 0x{frame_type:02x} is not one a proxy sends here")

    def _shake(self, frame_type: int, payload: bytes, out: list[bytes]) -> None:
        if frame_type != FrameType.HANDSHAKE_REQUEST:
            raise FrameError(f"frame type 0x{frame_type:02x} before the handshake")
        answer, refused = handshake.respond(payload)
        out.append(encode_v2(FrameType.HANDSHAKE_RESPONSE, answer))
        if refused is not None:
            raise FrameError(f"handshake refused: {refused}")
        self._shaken = True
