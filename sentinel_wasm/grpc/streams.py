"""What comes from gRPC's clients: single events, streams of them, and control."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import structlog

from sentinel_wasm.errors import EventError
from sentinel_wasm.grpc import agent_pb2 as pb
from sentinel_wasm.grpc import events, reports
from sentinel_wasm.grpc.answers import Answers, message_of
from sentinel_wasm.logs import Throttle
from sentinel_wasm.protocol import answers
from sentinel_wasm.protocol.frames import FrameType
from sentinel_wasm.server.serving import Serving

_log = structlog.stdlib.get_logger("grpc")
_throttle = Throttle()

_HEAD_BYTES = 5  # of a v2 frame
_QUIET_S = 0.02  # nothing has come for so long: nothing is on its way
_LOOK_S = 0.005

Context = Any  # grpc.aio.ServicerContext, which has no types
Reply = Callable[[bytes], None]

NO_ANSWER = b""


class Events:
    """What the agent that serves makes of events, as gRPC's messages."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._answers = Answers()

    def answer(self, data: bytes, reply: Reply) -> bytes | None:
        """The AgentToProxy for a ProxyToAgent, or NO_ANSWER; None: `reply` gets it later.

        Raises EventError where it cannot be answered.
        """
        arrived_ns = time.monotonic_ns()
        message = events.parse(data, pb.ProxyToAgent)
        name = message.WhichOneof("message")
        if name in events.KINDS:
            return self._answer(events.event_of(name, message), arrived_ns, reply)
        match name:
            case "handshake":
                return reports.handshake_answer(message.handshake)
            case "ping":
                return reports.pong(message.ping)
            case "configure":
                self._configure(message.configure, arrived_ns)
                return NO_ANSWER
            case "cancel":
                # It has nothing to stop: its event is answered, or will be at its deadline.
                return NO_ANSWER
        raise EventError("the message is none of those that ProxyToAgent has")

    def _answer(self, event: events.Event, arrived_ns: int, reply: Reply) -> bytes | None:
        agent = self._serving.agent
        if agent.counts.recent is not None:
            agent.counts.recent.seen_ns = arrived_ns
        frame = agent.quick.answer_frame(event.frame_type, event.payload, arrived_ns)
        answer: bytes | None
        if frame is not None:
            answer = frame[_HEAD_BYTES:]
        else:

            def later(correlation_id: str, answer: bytes) -> None:
                reply(self._message(answer, correlation_id))

            answer = agent.answer_v2(event.frame_type, event.payload, arrived_ns, later)
        agent.counts.took(arrived_ns)
        if answer is None:
            return None
        answer = answers.without_correlation_id(answer, event.correlation_id)
        return self._message(answer, event.correlation_id)

    def _message(self, answer: bytes, correlation_id: str) -> bytes:
        return message_of(self._answers.encoded(answer), correlation_id)

    def _configure(self, event: pb.ConfigureEvent, arrived_ns: int) -> None:
        """The proxy takes no answer to it here; the log has what became of it."""
        payload = events.configure(event)
        self._serving.agent.answer_v2(FrameType.CONFIGURE, payload, arrived_ns, lambda identity, answer: None)


class EventStream:
    """One ProcessStream: several events are under way, answers leave as they come, one at a time."""

    def __init__(self, events: Events, context: Context, health: Callable[[], str]) -> None:
        self._events = events
        self._context = context
        self._health = health
        self._loop = asyncio.get_running_loop()
        self._writing = asyncio.Lock()
        self._sending: set[asyncio.Task[None]] = set()
        self._waiting = 0  # events that workers have
        self._heard_s = 0.0  # when something came, of the loop's clock
        self._reading: asyncio.Task[None] | None = None
        self._is_draining = False

    async def run(self) -> None:
        """Until the client has said all, or `drain` ends it, and all is answered. Raises EventError."""
        # The proxy says nothing before it has them.
        await self._context.send_initial_metadata(())
        self._reading = self._loop.create_task(self._read_all())
        try:
            await self._reading
        except asyncio.CancelledError:
            if not self._is_draining:
                raise
        while self._waiting or self._sending:
            await asyncio.sleep(_LOOK_S)

    async def drain(self) -> None:
        """Say that the agent stops; end the stream when nothing is under way."""
        self._is_draining = True
        await self._write(reports.health("draining"))
        while self._waiting or self._loop.time() - self._heard_s < _QUIET_S:
            await asyncio.sleep(_LOOK_S)
        if self._reading is not None:
            self._reading.cancel()

    def send(self, message: bytes) -> None:
        """Write it when what is before it has been written."""
        task = self._loop.create_task(self._send(message))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, message: bytes) -> None:
        try:
            await self._write(message)
        except grpc.aio.BaseError as error:
            _log.debug("not written: the client has gone", reason=str(error))

    async def _read_all(self) -> None:
        while (data := await self._context.read()) is not grpc.aio.EOF:
            self._heard_s = self._loop.time()
            answer = self._events.answer(data, self._reply)
            if answer is None:
                self._waiting += 1
            elif answer is not NO_ANSWER:
                await self._write(answer)

    async def _write(self, message: bytes) -> None:
        async with self._writing:
            await self._context.write(message)

    def _reply(self, message: bytes) -> None:
        self._waiting -= 1
        self.send(message)
