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
from sentinel_wasm.protocol import answers, handshake
from sentinel_wasm.protocol.frames import FrameType, encode_v1, encode_v2
from sentinel_wasm.server.clock import LoopClock
from sentinel_wasm.server.heap import LARGE_BYTES, Heap

_log = structlog.stdlib.get_logger("connection")

_EVENTS = range(0x10, 0x20)


class Connection(asyncio.BufferedProtocol):
    """Reads into a FrameBuffer, answers every whole frame of one read in one write.

    v1 and v2 are told apart by the first frame. Answers that workers make are written as they come: over v2
    in any order; over v1 the next event waits until the one before it is answered. A framing error closes
    this connection alone, and so does an answer that is too late for v1. While the client does not read its
    answers, nothing more is read from it.
    """

    def __init__(
        self,
        agent: Agent,
        proxy_timeout_ms: int,
        clock: LoopClock,
        heap: Heap,
        connections: set[Connection],
    ) -> None:
        """`proxy_timeout_ms`: when a v1 proxy gives an event up."""
        self._agent = agent
        self._proxy_timeout_ns = proxy_timeout_ms * 1_000_000
        self._clock = clock
        self._heap = heap
        self._connections = connections
        self._frames = FrameBuffer()
        self._transport: asyncio.Transport
        self._shaken = False
        self._draining = False
        self._is_broken = False  # what comes is not understood any more
        self._is_full = False  # answers wait to be read
        self._waiting = 0  # events that workers have
        self._arrived_ns = 0  # v1: the event that a worker has

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._clock.watch(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        self._clock.unwatch(self)
        if self._frames.unread:
            _log.warning("client gone in the middle of a frame", unread_bytes=self._frames.unread)

    def get_buffer(self, sizehint: int) -> FrameBuffer:
        return self._frames

    def buffer_updated(self, nbytes: int) -> None:
        self._frames.received(nbytes)
        self._answer_frames(self._clock.turn_ns())

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._is_full = True
        self._pause_or_resume()

    def resume_writing(self) -> None:
        self._is_full = False
        self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        """Read only from a sound client that reads, and over v1 only when nothing is under way."""
        if self._transport.is_closing():
            return
        if self._is_broken or self._is_full or (self._frames.protocol == 1 and self._waiting):
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def drain(self) -> None:
        """Tell a v2 proxy that we stop, and close once every event is answered and read."""
        self._draining = True
        self.send_health(3)
        self._close_if_drained()

    def send_health(self, state: int) -> None:
        """HealthStatus, to v2 proxies: 1 healthy, 2 degraded, 3 draining (agent-protocol.md, section 3)."""
        if self._shaken:
            self._transport.write(encode_v2(FrameType.HEALTH_STATUS, orjson.dumps({"state": state})))

    def _close_if_drained(self) -> None:
        if self._draining and self._waiting == 0:
            self._transport.close()

    def _answer_frames(self, arrived_ns: int) -> None:
        out: list[bytes] = []
        try:
            while (payload := self._frames.next_frame()) is not None:
                if len(payload) > LARGE_BYTES:
                    self._heap.large_frame(self._frames)
                if self._frames.protocol == 1:
                    self._on_v1(payload, arrived_ns, out)
                    if self._waiting:
                        break
                else:
                    self._on_v2(self._frames.frame_type, payload, arrived_ns, out)
        except ProtocolError as error:
            self._close(error, out)
            return
        self._write(out)

    def _close(self, error: ProtocolError, out: list[bytes]) -> None:
        """Read no more, and close when the events before the error are answered."""
        _log.error("connection closed", reason=str(error))
        self._write(out)
        self._is_broken = self._draining = True
        self._pause_or_resume()
        self._close_if_drained()

    def _write(self, out: list[bytes]) -> None:
        if out:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _on_v1(self, payload: bytes, arrived_ns: int, out: list[bytes]) -> None:
        arrived_ns = min(arrived_ns, self._clock.v1_arrival_ns())
        answer = self._agent.answer_v1(payload, arrived_ns, self._answered_v1)
        if answer is None:
            self._waiting = 1
            self._arrived_ns = arrived_ns
            self._pause_or_resume()
            return
        if time.monotonic_ns() - arrived_ns > self._proxy_timeout_ns:
            raise self._too_late(arrived_ns)
        out.append(encode_v1(answer))

    def _too_late(self, arrived_ns: int) -> LateAnswerError:
        """For an answer that the proxy would take for the next request's (section 2)."""
        took_ms = (time.monotonic_ns() - arrived_ns) // 1_000_000
        limit_ms = self._proxy_timeout_ns // 1_000_000
        return LateAnswerError(f"an answer took {took_ms} ms, and a v1 proxy waits {limit_ms}")

    def _answered_v1(self, correlation_id: str, answer: bytes) -> None:
        self._waiting = 0
        if self._transport.is_closing():
            return
        if time.monotonic_ns() - self._arrived_ns > self._proxy_timeout_ns:
            self._close(self._too_late(self._arrived_ns), [])
            return
        self._transport.write(encode_v1(answer))
        self._pause_or_resume()
        self._close_if_drained()
        if self._frames.unread and not self._transport.is_closing():
            self._answer_frames(self._arrived_ns)

    def _answered_v2(self, correlation_id: str, answer: bytes) -> None:
        self._waiting -= 1
        if self._transport.is_closing():
            return
        answer = answers.with_correlation_id(answer, correlation_id)
        self._transport.write(encode_v2(FrameType.AGENT_RESPONSE, answer))
        self._close_if_drained()

    def _on_v2(self, frame_type: int, payload: bytes, arrived_ns: int, out: list[bytes]) -> None:
        if not self._shaken:
            self._shake(frame_type, payload, out)
        elif frame_type in _EVENTS:
            answer = self._agent.answer_v2(frame_type, payload, arrived_ns, self._answered_v2)
            if answer is None:
                self._waiting += 1
            else:
                out.append(encode_v2(FrameType.AGENT_RESPONSE, answer))
        elif frame_type == FrameType.PING:
            out.append(encode_v2(FrameType.PONG, payload))
        elif frame_type not in (FrameType.PONG, FrameType.CANCEL):
            # A Cancel has nothing to stop: its event is answered, or will be at its deadline.
            raise FrameError(f"frame type 0x{frame_type:02x} is not one a proxy sends here")

    def _shake(self, frame_type: int, payload: bytes, out: list[bytes]) -> None:
        if frame_type != FrameType.HANDSHAKE_REQUEST:
            raise FrameError(f"frame type 0x{frame_type:02x} before the handshake")
        answer, refused = handshake.respond(payload)
        out.append(encode_v2(FrameType.HANDSHAKE_RESPONSE, answer))
        if refused is not None:
            raise FrameError(f"handshake refused: {refused}")
        self._shaken = True
        self._clock.unwatch(self)
