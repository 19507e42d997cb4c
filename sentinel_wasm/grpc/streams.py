"""What comes from gRPC's clients: single events, streams of them, and control."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import structlog

from sentinel_wasm._protobuf import HeaderAnswers, header_event
from sentinel_wasm.answering import Answering
from sentinel_wasm.errors import EventError
from sentinel_wasm.grpc import agent_pb2 as pb
from sentinel_wasm.grpc import events, reports
from sentinel_wasm.grpc.answers import DROPPED, Answers, message_of
from sentinel_wasm.protocol import answers
from sentinel_wasm.protocol.frames import FrameType
from sentinel_wasm.server.serving import Serving

_log = structlog.stdlib.get_logger("grpc")

_QUIET_S = 0.02  # nothing has come for so long: nothing is on its way
_LOOK_S = 0.005

Context = Any  # grpc.aio.ServicerContext, which has no types
Reply = Callable[[bytes], None]

NO_ANSWER = b""


class Events:
    """What the agent that serves makes of events, as gRPC's messages."""

    def __init__(self, serving: Serving) -> None:
        self.dropped = dict.fromkeys(DROPPED, 0)
        self._serving = serving
        self._answers = Answers()
        self._quick = HeaderAnswers()

    def answer(self, data: bytes, reply: Reply) -> bytes | None:
        """The AgentToProxy for a ProxyToAgent, or NO_ANSWER; None: `reply` gets it later.

        Raises EventError where it cannot be answered.
        """
        arrived_ns = time.monotonic_ns()
        quick = self._quick.answer(data, self._serving.agent.quick, arrived_ns)
        if quick is not None:
            return quick if type(quick) is bytes else self._kept(*quick)
        if (event := header_event(data)) is not None:
            return self._answer(*event, arrived_ns, reply)
        message = events.parse(data, pb.ProxyToAgent)
        name = message.WhichOneof("message")
        match name:
            case "request_body_chunk" | "response_body_chunk":
                return self._answer_chunk(name, getattr(message, name), arrived_ns, reply)
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
            case None:
                raise EventError("the message is none of those that ProxyToAgent has")
        return self._answer(*events.event_of(name, message), arrived_ns, reply)

    def _kept(self, correlation_id: str, answer: bytes) -> bytes:
        """An answer up to where its id begins, which is known from now on, unless a part of it is lost."""
        whole = answers.with_no_id(answer)
        encoded = self._answers.encoded(whole)
        if not encoded.dropped:
            self._quick.keep(answer, encoded.rest)
        return self._message(whole, correlation_id)

    def _answer(
        self, frame_type: int, correlation_id: str, payload: bytes, arrived_ns: int, reply: Reply
    ) -> bytes | None:
        agent = self._agent(arrived_ns)
        answer = agent.answer_v2(frame_type, payload, arrived_ns, self._later(reply))
        agent.counts.took(arrived_ns)
        if answer is None:
            return None
        return self._message(answers.without_correlation_id(answer, correlation_id), correlation_id)

    def _answer_chunk(
        self, name: str, message: pb.BodyChunkEvent, arrived_ns: int, reply: Reply
    ) -> bytes | None:
        kind, chunk = events.chunk_of(name, message)
        agent = self._agent(arrived_ns)
        answer = agent.answer_chunk(kind, chunk, arrived_ns, self._later(reply))
        agent.counts.took(arrived_ns)
        return None if answer is None else self._message(answer, chunk.correlation_id)

    def _agent(self, arrived_ns: int) -> Answering:
        """The one that answers an event, which came then."""
        agent = self._serving.agent
        if agent.counts.recent is not None:
            agent.counts.recent.seen_ns = arrived_ns
        return agent

    def _later(self, reply: Reply) -> Callable[[str, bytes], None]:
        return lambda correlation_id, answer: reply(self._message(answer, correlation_id))

    def _message(self, answer: bytes, correlation_id: str) -> bytes:
        encoded = self._answers.encoded(answer)
        for what in encoded.dropped:
            if self.dropped[what] == 0:
                _log.warning("gRPC cannot carry a part of an answer; said once", part=what)
            self.dropped[what] += 1
        return message_of(encoded, correlation_id)

    def _configure(self, event: pb.ConfigureEvent, arrived_ns: int) -> None:
        """The proxy takes no answer to it here; the log has what became of it."""
        payload = events.configure(event)
        agent = self._agent(arrived_ns)
        agent.answer_v2(FrameType.CONFIGURE, payload, arrived_ns, lambda correlation_id, answer: None)
        agent.counts.took(arrived_ns)


class EventStream:
    """One ProcessStream: several events are under way, answers leave as they come, one at a time."""

    def __init__(self, events: Events, context: Context, serving: Serving) -> None:
        self._events = events
        self._context = context
        self._serving = serving
        self._loop = asyncio.get_running_loop()
        self._writing = asyncio.Lock()
        self._sending: set[asyncio.Task[None]] = set()
        self._waiting = 0  # events that workers have
        self._heard_s = 0.0  # when something came last, of the loop's clock; 0: nothing has
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
        self.tell(reports.health("draining"))
        self._is_draining = True
        while self._waiting or self._writing.locked() or self._loop.time() - self._heard_s < _QUIET_S:
            await asyncio.sleep(_LOOK_S)
        if self._reading is not None:
            self._reading.cancel()

    def tell(self, message: bytes) -> bool:
        """Say what is no answer; False: not to this proxy. It reads its handshake's answer first, and last
        that the agent drains.
        """
        if self._heard_s == 0 or self._is_draining:
            return False
        self._send(message)
        return True

    def _send(self, message: bytes) -> None:
        task = self._loop.create_task(self._write(message))
        self._sending.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.debug("not written: the client has gone", reason=str(task.exception()))

    async def _read_all(self) -> None:
        while (data := await self._context.read()) is not grpc.aio.EOF:
            answer = self._events.answer(data, self._reply)
            if answer is None:
                self._waiting += 1
            elif answer is not NO_ANSWER:
                await self._write(answer)
            if self._heard_s == 0 and self._serving.agent.health != "healthy":
                # What a proxy has not been told is healthy.
                await self._write(reports.health(self._serving.agent.health))
            self._heard_s = self._loop.time()

    async def _write(self, message: bytes) -> None:
        async with self._writing:
            await self._context.write(message)

    def _reply(self, message: bytes) -> None:
        self._waiting -= 1
        self._send(message)


async def control_stream(_: Any, context: Context) -> None:
    """By its messages it is for agents that call a proxy: who calls an agent has nothing to ask for here."""
    await context.send_initial_metadata(())
    while (data := await context.read()) is not grpc.aio.EOF:
        message = events.parse(data, pb.AgentControl)
        if message.WhichOneof("message") == "config_update":
            refusal = pb.ConfigUpdateResponse(
                request_id=message.config_update.request_id,
                accepted=False,
                error="this is an agent: it has no configuration of a proxy",
                timestamp_ms=reports.now_ms(),
            )
            await context.write(pb.ProxyControl(config_response=refusal).SerializeToString())
