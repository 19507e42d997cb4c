"""Connections of proxies; each knows what it has sent and what it has been answered."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from pathlib import Path
from typing import Any

import orjson

from sentinel_wasm.client import event_v1, event_v2
from sentinel_wasm.protocol.frames import FrameType, encode_v2

from .traffic import Event, is_late

ANSWER_S = 30.0  # far more than any answer takes: then it is lost
Answered = asyncio.Future[None]
EXTRA_S = 0.05  # how long a connection listens for answers too many before it closes
_CONTROL = range(0x30, 0x40)
_SHAKE = {"supported_versions": [2], "proxy_id": "soak", "proxy_version": "0", "config": None}


class Cut(Exception):
    """The connection was cut by its own side: what was in flight has no answer."""


class Tally:
    """What all connections have seen."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def check(self, event: Event, answer: dict[str, Any], protocol: int) -> None:
        wrong = event.wrong(answer, protocol)
        self.counts["answered"] += 1
        if not wrong:
            self.counts[f"right: {event.letter or 'nothing asked'}"] += 1
        elif is_late(answer):
            self.counts["late"] += 1
        else:
            self.wrong.append(f"v{protocol} {event.kind.name}: {wrong}")


class Connection:
    """One connection: answers are checked as they come in, and those too many are found."""

    protocol: int

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._over = False  # what the agent does from now on is right
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._reading: asyncio.Task[None]

    async def open(self, path: Path) -> None:
        self._reader, self._writer = await asyncio.open_unix_connection(str(path), limit=1 << 20)
        await self._greet()
        self._reading = asyncio.create_task(self._read_all())

    async def ask(self, event: Event, *, byte_by_byte: bool = False) -> None:
        """Send an event and wait for its answer. Raises Cut where there will be none."""
        (answered,) = await self.send([event], byte_by_byte=byte_by_byte)
        try:
            await asyncio.wait_for(answered, ANSWER_S)
        except asyncio.TimeoutError:
            self._fail(f"{event.kind.name}: no answer after {ANSWER_S:.0f} s")
            raise Cut from None

    async def send(self, events: list[Event], *, byte_by_byte: bool = False) -> list[Answered]:
        """Send events; each future is done when its answer has come. Raises Cut."""
        answered = [self._expect(event) for event in events]
        await self.write(b"".join(map(self.frame, events)), byte_by_byte=byte_by_byte)
        self._tally.counts["sent"] += len(events)
        return answered

    async def write(self, data: bytes, *, byte_by_byte: bool = False) -> None:
        """Raises Cut where the connection has ended."""
        pieces = [bytes((byte,)) for byte in data] if byte_by_byte else [data]
        try:
            for piece in pieces:
                if self._over:
                    raise Cut
                self._writer.write(piece)
                await self._writer.drain()
                if byte_by_byte:
                    await asyncio.sleep(0.0005)
        except ConnectionError as error:
            self._fail(f"broke while it was written to: {error}")
            raise Cut from None

    def frame(self, event: Event) -> bytes:
        """The event as this protocol has it."""
        raise NotImplementedError

    def cut(self) -> None:
        """Close without a word; who waits gets Cut."""
        self._over = True
        self._writer.transport.abort()
        for answered in self._forget():
            self._tally.counts["cut off"] += 1
            if not answered.done():
                answered.set_exception(Cut())
                answered.exception()  # nobody need have waited for it

    async def close(self) -> None:
        """Close, once a while has passed in which nothing was said too much."""
        if not self._over:
            await asyncio.sleep(EXTRA_S)
            self._over = True
        self._writer.close()
        await self._reading

    async def is_closed_by_agent(self) -> bool:
        """Wait for the agent to close, after something that it must not accept."""
        self._over = True
        done, _ = await asyncio.wait([self._reading], timeout=ANSWER_S)
        self._writer.close()
        return bool(done)

    async def _read_all(self) -> None:
        try:
            while True:
                length = int.from_bytes(await self._reader.readexactly(4), "big")
                frame = await self._reader.readexactly(length)
                if not self._over:
                    self._on_frame(frame)
        except (asyncio.IncompleteReadError, ConnectionError):
            if not self._over:
                self._fail("closed by the agent, without a cause")

    def _check(self, event: Event, answered: Answered, answer: dict[str, Any]) -> None:
        self._tally.check(event, answer, self.protocol)
        if not answered.done():
            answered.set_result(None)

    def _fail(self, what: str) -> None:
        self._tally.wrong.append(f"v{self.protocol} connection: {what}")
        self.cut()

    async def _greet(self) -> None:
        """Whatever comes before events."""

    def _expect(self, event: Event) -> Answered:
        raise NotImplementedError

    def _on_frame(self, frame: bytes) -> None:
        raise NotImplementedError

    def _forget(self) -> list[Answered]:
        """Those that wait; none does afterwards."""
        raise NotImplementedError


class V1(Connection):
    """Answers come in the order of the events. A proxy has one event under way at a time."""

    protocol = 1

    def __init__(self, tally: Tally) -> None:
        super().__init__(tally)
        self._waiting: deque[tuple[Event, Answered]] = deque()

    def frame(self, event: Event) -> bytes:
        return event_v1(event.kind, event.payload)

    def _expect(self, event: Event) -> Answered:
        self._waiting.append((event, asyncio.get_running_loop().create_future()))
        return self._waiting[-1][1]

    def _on_frame(self, frame: bytes) -> None:
        if self._waiting:
            self._check(*self._waiting.popleft(), orjson.loads(frame))
        else:
            self._fail(f"an answer to nothing: {frame[:300]!r}")

    def _forget(self) -> list[Answered]:
        waiting = [answered for _, answered in self._waiting]
        self._waiting.clear()
        return waiting


class V2(Connection):
    """Answers carry the event's id, and come in any order."""

    protocol = 2

    def __init__(self, tally: Tally) -> None:
        super().__init__(tally)
        self._waiting: dict[str, tuple[Event, Answered]] = {}
        self._pings: deque[bytes] = deque()

    def frame(self, event: Event) -> bytes:
        return event_v2(event.kind, event.payload)

    async def ping(self, payload: bytes) -> None:
        """Its Pong is checked when it comes."""
        self._pings.append(payload)
        await self.write(encode_v2(FrameType.PING, payload))

    async def cancel(self, identity: str) -> None:
        message = {"correlation_id": identity, "reason": 0, "timestamp_ms": 1}
        await self.write(encode_v2(FrameType.CANCEL, orjson.dumps(message)))

    async def close(self) -> None:
        await super().close()
        if self._pings:
            self._tally.wrong.append(f"{len(self._pings)} pings without a pong")

    async def _greet(self) -> None:
        self._writer.write(encode_v2(FrameType.HANDSHAKE_REQUEST, orjson.dumps(_SHAKE)))
        length = int.from_bytes(await self._reader.readexactly(4), "big")
        answer = await self._reader.readexactly(length)
        assert answer[0] == FrameType.HANDSHAKE_RESPONSE
        assert orjson.loads(answer[1:])["success"] is True

    def _expect(self, event: Event) -> Answered:
        identity = event.payload["correlation_id"]
        assert identity not in self._waiting
        self._waiting[identity] = event, asyncio.get_running_loop().create_future()
        return self._waiting[identity][1]

    def _on_frame(self, frame: bytes) -> None:
        frame_type, payload = frame[0], frame[1:]
        if frame_type == FrameType.PONG:
            if not self._pings or self._pings.popleft() != payload:
                self._fail(f"a pong that does not fit: {payload[:50]!r}")
            self._tally.counts["pongs"] += 1
        elif frame_type == FrameType.AGENT_RESPONSE:
            self._on_answer(orjson.loads(payload))
        elif frame_type not in _CONTROL:
            self._fail(f"frame type 0x{frame_type:02x}")

    def _on_answer(self, answer: dict[str, Any]) -> None:
        found = self._waiting.pop(answer["audit"]["custom"]["correlation_id"], None)
        if found is None:
            self._fail(f"an answer to nothing: {str(answer)[:300]}")
        else:
            self._check(*found, answer)

    def _forget(self) -> list[Answered]:
        waiting = [answered for _, answered in self._waiting.values()]
        self._waiting.clear()
        self._pings.clear()
        return waiting


def frame_beginning(frame_type: FrameType, length: int) -> bytes:
    """The first bytes of a v2 frame that is longer than they are."""
    return (length + 1).to_bytes(4, "big") + bytes((frame_type,))
