"""What passes between a proxy and an agent: passed on as it is, and read beside that."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sentinel_wasm.cli import traffic
from sentinel_wasm.decision import Decision
from sentinel_wasm.errors import EventError, FrameError, ProtocolError
from sentinel_wasm.protocol import answers, events, msgpack
from sentinel_wasm.protocol.events import EVENT_NAMES, EVENT_TYPES, EventKind
from sentinel_wasm.protocol.frames import FrameReader, FrameType

_READ_BYTES = 1 << 18
_PAUSE_S = 0.1

# Of one connection, while they wait for their answers.
_MOST_EVENTS = 4096
_MOST_BYTES = 64 * 1024 * 1024


@dataclass
class Counts:
    """What a tap has seen.

    `refused` are connections that the agent did not take, `bytes` go both ways, `others` are events that are
    not recorded.
    """

    connections: int = 0
    refused: int = 0
    bytes: int = 0
    events: int = 0
    answers: int = 0
    others: int = 0
    not_understood: int = 0


class _Asked(NamedTuple):
    """An event that waits for its answer; `data` is as a line of the file has it."""

    time: float
    hook: str
    data: bytes


class Conversation:
    """One connection, read from its bytes both ways, in the order in which they came.

    Every event of the proxy's has its place until its answer comes: by its correlation id over v2, by its
    number over v1. Those that are not recorded have one too. What is not understood is counted; where that
    is the framing, nothing more is read of this connection.
    """

    def __init__(
        self, number: int, counts: Counts, write: Callable[[bytes], None], *, bodies: bool = True
    ) -> None:
        """`write` gets the lines; without `bodies`, those of headers only."""
        self._number = number
        self._counts = counts
        self._write = write
        self._bodies = bodies
        self._events = FrameReader()
        self._answers = FrameReader()
        self._is_lost = False
        self._is_packed = False  # v2: what follows the handshake is MessagePack
        self._waiting: dict[str | int, _Asked | None] = {}
        self._waiting_bytes = 0
        self._asked = self._answered = 0  # v1: how many

    def from_proxy(self, data: bytes) -> None:
        self._feed(self._events, data, self._event)

    def from_agent(self, data: bytes) -> None:
        # Who speaks first is the proxy.
        self._answers.protocol = self._answers.protocol or self._events.protocol
        self._feed(self._answers, data, self._answer)

    def end(self) -> None:
        """No answer comes any more."""
        for key in list(self._waiting):
            self._over(key, None)

    def _feed(self, frames: FrameReader, data: bytes, take: Callable[[bytes], None]) -> None:
        self._counts.bytes += len(data)
        if self._is_lost:
            return
        frames.feed(data)
        try:
            while (payload := frames.next_frame()) is not None:
                try:
                    take(payload)
                except ProtocolError:
                    self._counts.not_understood += 1
        except FrameError:
            self._counts.not_understood += 1
            self._is_lost = True
            self._events = self._answers = FrameReader(self._events.protocol)

    def _event(self, frame: bytes) -> None:
        """Raises EventError."""
        if self._events.protocol == 1:
            self._asked += 1
            self._wait(self._asked, None)  # whatever it is, an answer comes
            request = _object(frame)
            kind = EVENT_NAMES.get(events.field(request, "event_type", str))
            self._record(self._asked, kind, request.get("payload"))
        elif (kind := EVENT_TYPES.get(self._events.frame_type)) is not None:
            payload = self._object(frame)
            identity = events.correlation_id(payload)
            if identity is None:
                raise EventError("the event has no correlation_id")
            self._wait(identity, None)
            self._record(identity, kind, payload)

    def _record(self, key: str | int, kind: EventKind | None, payload: Any) -> None:
        """Raises EventError."""
        if kind is None or kind not in traffic.HOOKS or (kind not in traffic.HEADERS and not self._bodies):
            self._counts.others += 1
            return
        self._wait(key, _Asked(time.time(), traffic.HOOKS[kind], traffic.encode_event(kind, payload)))
        self._counts.events += 1

    def _answer(self, frame: bytes) -> None:
        """Raises ProtocolError."""
        key: str | int
        if self._answers.protocol == 1:
            self._answered += 1
            key, answer = self._answered, _object(frame)
        elif self._answers.frame_type == FrameType.AGENT_RESPONSE:
            answer = self._object(frame)
            key = answers.correlation_id(answer)
        else:
            if self._answers.frame_type == FrameType.HANDSHAKE_RESPONSE:
                self._is_packed = _object(frame).get("encoding") == "msgpack"
            return
        if key not in self._waiting:
            raise ProtocolError("an answer to no event")
        self._over(key, answers.decode(answer))

    def _object(self, frame: bytes) -> dict[str, Any]:
        """A v2 payload. Raises EventError."""
        return _object(msgpack.to_json(frame) if self._is_packed else frame)

    def _wait(self, key: str | int, asked: _Asked | None) -> None:
        if key in self._waiting:
            self._over(key, None)  # over v2, the proxy has given it up
        self._waiting[key] = asked
        self._waiting_bytes += len(asked.data) if asked else 0
        while len(self._waiting) > _MOST_EVENTS or self._waiting_bytes > _MOST_BYTES:
            self._over(next(iter(self._waiting)), None)

    def _over(self, key: str | int, answer: Decision | None) -> None:
        """An event has its answer, or will have none."""
        asked = self._waiting.pop(key)
        if asked is None:
            return
        self._waiting_bytes -= len(asked.data)
        line = traffic.line(asked.time, self._number, self._events.protocol, asked.hook, asked.data, answer)
        if len(line) > traffic.LINE_BYTES:  # for the masks of thousands of empty values
            self._counts.not_understood += 1
            return
        self._counts.answers += answer is not None
        self._write(line)


def _object(frame: bytes) -> dict[str, Any]:
    """Raises EventError."""
    value = events.loads(frame)
    if type(value) is not dict:
        raise EventError("not an object")
    return value


class Tap:
    """Connections of proxies, each with one of its own to the agent."""

    def __init__(
        self, agent: Path, counts: Counts, write: Callable[[bytes], None], *, bodies: bool = True
    ) -> None:
        """`agent` is its socket; `write` and `bodies` as `Conversation` has them."""
        self._agent = str(agent)
        self._counts = counts
        self._write = write
        self._bodies = bodies
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, listening: socket.socket) -> None:
        """Until it is cancelled, which ends all connections."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    proxy, _ = await loop.sock_accept(listening)
                except OSError:  # too many files are open
                    await asyncio.sleep(_PAUSE_S)
                    continue
                task = loop.create_task(self._converse(proxy))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _converse(self, proxy: socket.socket) -> None:
        """Until the agent ends it, or either is gone; that the proxy says no more is passed on."""
        loop = asyncio.get_running_loop()
        with proxy, contextlib.ExitStack() as stack:
            try:
                agent = stack.enter_context(socket.socket(socket.AF_UNIX))
                agent.setblocking(False)
                await loop.sock_connect(agent, self._agent)
            except OSError:
                self._counts.refused += 1
                return
            self._counts.connections += 1
            conversation = Conversation(
                self._counts.connections, self._counts, self._write, bodies=self._bodies
            )
            asking = loop.create_task(_pass_on(proxy, agent, conversation.from_proxy))
            try:
                await _pass_on(agent, proxy, conversation.from_agent)
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                conversation.end()


async def _pass_on(source: socket.socket, target: socket.socket, read: Callable[[bytes], None]) -> None:
    """Nothing more is taken than the other end takes, and `read` comes after, for the time that it needs.

    An answer is not read before its event all the same: it comes in a later turn of the event loop.
    """
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):  # one of them is gone
        while data := await loop.sock_recv(source, _READ_BYTES):
            try:
                await loop.sock_sendall(target, data)
            finally:
                read(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
