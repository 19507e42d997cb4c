"""One proxy's connection: frames in, answers out."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from types import ModuleType
from typing import Literal, cast

import orjson
import structlog

from sentinel_wasm._stream import Stream
from sentinel_wasm.answering import Answering
from sentinel_wasm.errors import EventError, FrameError, ProtocolError
from sentinel_wasm.guest.failures import Health
from sentinel_wasm.logs import Throttle
from sentinel_wasm.protocol import answers, handshake
from sentinel_wasm.protocol.frames import FrameType, encode_v1, encode_v2
from sentinel_wasm.server.clock import LoopClock
from sentinel_wasm.server.handover import State
from sentinel_wasm.server.heap import LARGE_BYTES, Heap
from sentinel_wasm.server.peer import peer_of
from sentinel_wasm.server.store import Store

_log = structlog.stdlib.get_logger("connection")
_throttle = Throttle()

_EVENTS = range(0x10, 0x20)


class Connection(Stream, asyncio.BufferedProtocol):
    """Reads into a FrameBuffer, answers every whole frame of one read in one write.

    v1 and v2 are told apart by the first frame. Answers that workers make are written as they come: over v2
    in any order; over v1 the next event waits until the one before it is answered. A framing error closes
    this connection alone, and so does an answer that is too late for v1. While the client does not read its
    answers, nothing more is read from it.
    """

    def __init__(
        self,
        agent: Answering,
        proxy_timeout_ms: int,
        clock: LoopClock,
        heap: Heap,
        connections: set[Connection],
        lost: Callable[[Connection], None] | None = None,
        store: Store | None = None,
    ) -> None:
        """`proxy_timeout_ms`: when a v1 proxy gives an event up; `lost` is called when it is lost; `store`
        keeps it beyond this process.
        """
        super().__init__(agent.quick, clock, proxy_timeout_ms * 1_000_000)
        self._agent = agent
        self._clock = clock
        self._heap = heap
        self._connections = connections
        self._lost = lost
        self._store = store
        self._transport: asyncio.Transport
        self._draining = False
        self._is_broken = False  # what comes is not understood any more
        self._is_full = False  # answers wait to be read
        self.is_leaving = False  # for another process
        self._msgpack: ModuleType  # protocol.msgpack, once it is spoken
        self.proxy = ""  # of --connect, where this agent has opened it
        self._made_s = 0.0  # of time.monotonic
        self._encoding: handshake.Encoding = "json"
        self._arrived_ns = 0  # v1: the event that a worker has
        self._kept_as = ""  # in the store
        self._looked_ns = 0  # when it was read from last, before it leaves or was resumed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.send, self.unsent = self._transport.write, self._transport.get_write_buffer_size
        self.fd = self.descriptor
        self._connections.add(self)
        self._made_s = time.monotonic()
        self._agent.counts.connections += 1
        if not self.shaken:
            self._clock.watch(self)
        self._keep()
        if self.proxy and self._agent.health != "healthy":
            self.send_health(self._agent.health)
        _log.debug("connection opened", connections=len(self._connections))
        if self.frames.unread:
            self.answer_frames(self._looked_ns)

    def connection_lost(self, error: Exception | None) -> None:
        self.send, self.fd = None, -1
        self._connections.discard(self)
        self._clock.unwatch(self)
        _log.debug("connection ended", connections=len(self._connections))
        if self.frames.unread:
            _throttle.say(
                "gone", _log.warning, "client gone in the middle of a frame", unread_bytes=self.frames.unread
            )
            self._look_at_size(self.frames.unread)
        if self._kept_as and not self.is_leaving and self._store is not None:
            self._store.drop(self._kept_as)
        if self._lost is not None:
            self._lost(self)

    @property
    def lived_s(self) -> float:
        """How long this process has it."""
        return time.monotonic() - self._made_s

    def _keep(self) -> None:
        if self._store is not None:
            agreed = self._encoding if self.shaken else None
            self._kept_as = self._store.keep(self.descriptor, self._kept_as, agreed, self.proxy)

    def exchange(self, agent: Answering) -> None:
        """Another agent answers from the next event on, which counts as the one before did."""
        self._agent = agent
        self.set_quick(agent.quick)

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
        busy = self.frames.protocol == 1 and self.waiting
        if self._is_broken or self._is_full or self.is_leaving or busy:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # To another process

    def prepare_to_leave(self) -> bool:
        """Read nothing more; whether every answer is with the kernel, so that it can leave at once."""
        if self._transport.is_closing() or self._draining:
            return False
        if not self.is_leaving:
            self.is_leaving = True
            self._looked_ns = self._clock.looked_ns()
            self._pause_or_resume()
        self.write_held()
        return self.waiting == 0 and self._transport.get_write_buffer_size() == 0

    def leave(self) -> State:
        """What comes next is for who has a duplicate of its socket. It is not shut down, only closed here."""
        state = State(
            self.frames.protocol,
            self.shaken,
            self._looked_ns,
            self.frames.take_unread(),
            self._kept_as,
            self._encoding,
            self.proxy,
        )
        self.abort()
        return state

    def abort(self) -> None:
        """Close it, whatever is under way."""
        self.fd = -1
        self._transport.abort()

    def stay(self) -> None:
        """Read on: it does not leave, or has come."""
        if not self._transport.is_closing():
            self.is_leaving = False
            self._pause_or_resume()

    @property
    def is_kept(self) -> bool:
        """It outlives this process."""
        return bool(self._kept_as)

    @property
    def descriptor(self) -> int:
        """Of its socket, to be duplicated."""
        return cast(int, self._transport.get_extra_info("socket").fileno())

    def resume(self, state: State, waiting: bytes) -> None:
        """Go on where another process has left it; before it is made. `waiting` is what came since then."""
        self.frames.resume(state.protocol, state.unread + waiting)
        self.shaken = state.is_shaken
        self._looked_ns = state.looked_ns
        self._kept_as = state.kept_as
        self._speak(state.encoding)
        self.proxy = state.proxy

    def drain(self) -> None:
        """Tell a v2 proxy that we stop, and close once every event is answered and read."""
        self.send_health("draining")
        self._draining = True
        self._close_if_drained()

    def send_health(self, health: Health | Literal["draining"]) -> None:
        """To v2 proxies; the last that they are told is that we drain."""
        if self.shaken and not self._draining:
            self.say(FrameType.HEALTH_STATUS, _health_status(health))

    @property
    def takes_reports(self) -> bool:
        """Over v2, from a client that reads."""
        return self.shaken and not (self._is_full or self._is_broken or self._transport.is_closing())

    @functools.cached_property
    def peer(self) -> int:
        """The proxy's process; 0: it cannot be seen from here."""
        return peer_of(self._transport.get_extra_info("socket")).pid

    def _close_if_drained(self) -> None:
        if self._draining and self.waiting == 0:
            self.write_held()
            self.fd = -1
            self._transport.close()

    def on_frame(self, payload: bytes, arrived_ns: int) -> bytes | None:
        self._look_at_size(len(payload))
        if self.frames.protocol == 1:
            return self._on_v1(payload, arrived_ns)
        return self._on_v2(self.frames.frame_type, payload, arrived_ns)

    def _look_at_size(self, frame_bytes: int) -> None:
        if frame_bytes > LARGE_BYTES:
            self._heap.large_frame(self.frames)

    def on_broken(self, error: ProtocolError) -> None:
        """Read no more, and close when the events before the error are answered."""
        _throttle.say("closed", _log.error, "connection closed", reason=str(error))
        self._is_broken = self._draining = True
        self._pause_or_resume()
        self._close_if_drained()

    def _on_v1(self, payload: bytes, arrived_ns: int) -> bytes | None:
        answer = self._agent.answer_v1(payload, arrived_ns, self._answered_v1)
        if answer is None:
            self.waiting = 1
            self._arrived_ns = arrived_ns
            self._pause_or_resume()
            return None
        if self.is_late(arrived_ns):
            raise self.too_late(arrived_ns)
        return encode_v1(answer)

    def _answered_v1(self, correlation_id: str, answer: bytes) -> None:
        self.waiting = 0
        if self._transport.is_closing():
            return
        if self.is_late(self._arrived_ns):
            self.on_broken(self.too_late(self._arrived_ns))
            return
        self.write(encode_v1(answer))
        self._pause_or_resume()
        self._close_if_drained()
        if self.frames.unread and not self._transport.is_closing():
            self.answer_frames(self._arrived_ns)

    def _answered_v2(self, correlation_id: str, answer: bytes) -> None:
        self.waiting -= 1
        if self._transport.is_closing():
            return
        self.say(FrameType.AGENT_RESPONSE, answers.with_correlation_id(answer, correlation_id))
        self._close_if_drained()

    def _on_v2(self, frame_type: int, payload: bytes, arrived_ns: int) -> bytes | None:
        if not self.shaken:
            return self._shake(frame_type, payload)
        if frame_type in _EVENTS:
            answer = self._answer(frame_type, payload, arrived_ns)
            if answer is None:
                self.waiting += 1
                return None
            return self._frame(FrameType.AGENT_RESPONSE, answer)
        if frame_type == FrameType.PING:
            return encode_v2(FrameType.PONG, payload)
        if frame_type in (FrameType.PONG, FrameType.CANCEL):
            # A Cancel has nothing to stop: its event is answered, or will be at its deadline.
            return None
        raise FrameError(f"frame type 0x{frame_type:02x} is not one a proxy sends here")

    def _shake(self, frame_type: int, payload: bytes) -> bytes:
        if frame_type != FrameType.HANDSHAKE_REQUEST:
            raise FrameError(f"frame type 0x{frame_type:02x} before the handshake")
        response = handshake.respond(payload)
        answer = encode_v2(FrameType.HANDSHAKE_RESPONSE, response.payload)
        if response.refused is not None:
            self.write(answer)
            raise FrameError(f"handshake refused: {response.refused}")
        self._speak(response.encoding)
        self.shaken = True
        self._clock.unwatch(self)
        self._keep()
        # What a proxy has not been told is healthy.
        if self._agent.health == "healthy":
            return answer
        return answer + self._frame(FrameType.HEALTH_STATUS, _health_status(self._agent.health))

    # Payloads, which are JSON to everything else

    def _speak(self, encoding: handshake.Encoding) -> None:
        self._encoding = encoding
        if encoding == "msgpack":
            from sentinel_wasm.protocol import msgpack  # loads msgspec, which few proxies need

            self._msgpack = msgpack
            self.packed = True

    def say(self, frame_type: FrameType, payload: bytes) -> None:
        """Send a frame, whose payload is JSON here, to a v2 proxy."""
        self.write(self._frame(frame_type, payload))

    def _frame(self, frame_type: FrameType, payload: bytes) -> bytes:
        return encode_v2(frame_type, self._msgpack.from_json(payload) if self.packed else payload)

    def _answer(self, frame_type: int, payload: bytes, arrived_ns: int) -> bytes | None:
        """As `Agent.answer_v2`."""
        if self.packed:
            try:
                payload = self._msgpack.to_json(payload)
            except EventError as error:
                correlation_id = self._msgpack.salvaged_id(payload)
                return self._agent.answer_unreadable(error, frame_type, correlation_id)
        return self._agent.answer_v2(frame_type, payload, arrived_ns, self._answered_v2)


def _health_status(health: str) -> bytes:
    return orjson.dumps({"state": handshake.HEALTH_STATES[health]})
