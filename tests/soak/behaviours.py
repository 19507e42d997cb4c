"""How proxies behave: well, or as no proxy should."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from sentinel_wasm.protocol.frames import FrameType, encode_v2

from .connections import V1, V2, Cut, Tally, frame_beginning
from .traffic import Requests

STEADY_V1, STEADY_V2, ROUGH = 12, 24, 14  # connections: 50 in all
IN_FLIGHT = 3  # requests at a time on one v2 connection
PAUSE_S = 0.1  # the mean time between two events of one request
REQUESTS_A_CONNECTION = 40
MIB = 1024 * 1024

_GARBAGE_V1 = (b"\0\0\0\0", b"\xff\xff\xff\xff{", (11 * MIB).to_bytes(4, "big") + b"{")
_GARBAGE_V2 = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff\x10",
    encode_v2(0x99, b"what no proxy sends"),
    encode_v2(FrameType.REQUEST_HEADERS, b"an event without an id"),
    encode_v2(FrameType.HANDSHAKE_RESPONSE, b"{}"),
)


class Soak:
    """The traffic of 50 connections, until it is stopped."""

    def __init__(self, path: Path, seed: int) -> None:
        self.tally = Tally()
        self._path = path
        self._random = random.Random(seed)
        self._requests = Requests(seed)
        self._stopped = asyncio.Event()

    async def run(self, seconds: float) -> None:
        """All of it, until every connection has ended as it should."""
        proxies = [
            *(self._steady(V1, 1) for _ in range(STEADY_V1)),
            *(self._steady(V2, IN_FLIGHT) for _ in range(STEADY_V2)),
            *(self._rough() for _ in range(ROUGH)),
        ]
        tasks = [asyncio.create_task(proxy) for proxy in proxies]
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        self._stopped.set()
        await asyncio.gather(*tasks)
        assert not done, "a connection's traffic ended by itself"

    async def _opened(self, kind: type[V1] | type[V2]) -> V1 | V2:
        connection = kind(self.tally)
        await connection.open(self._path)
        self.tally.counts["connections"] += 1
        return connection

    async def _pause(self) -> None:
        await asyncio.sleep(self._random.expovariate(1 / PAUSE_S))

    async def _steady(self, kind: type[V1] | type[V2], in_flight: int) -> None:
        """Requests as proxies send them; now and then the connection ends in order, and another begins."""
        while not self._stopped.is_set():
            connection = await self._opened(kind)
            share = [REQUESTS_A_CONNECTION // in_flight] * in_flight
            await asyncio.gather(*(self._send_requests(connection, number) for number in share))
            await connection.close()

    async def _send_requests(self, connection: V1 | V2, number: int) -> None:
        with contextlib.suppress(Cut):  # the agent's doing, which is in the tally
            for _ in range(number):
                for event in self._requests.request():
                    await self._pause()
                    if self._stopped.is_set():
                        return
                    if isinstance(connection, V2):
                        await self._control_frames(connection, event.payload["correlation_id"])
                    await connection.ask(event)

    async def _control_frames(self, connection: V2, identity: str) -> None:
        if self._random.random() < 0.02:
            await connection.ping(self._random.randbytes(self._random.choice((0, 8, 1000))))
        if self._random.random() < 0.02:
            await connection.cancel(identity)

    async def _rough(self) -> None:
        """One connection after another that goes wrong in some way."""
        ways: list[Callable[[V1 | V2], Awaitable[None]]] = [
            self._cut_with_events_in_flight,
            self._cut_in_the_middle_of_a_frame,
            self._cut_in_the_middle_of_a_large_frame,
            self._write_byte_by_byte,
            self._send_garbage,
        ]
        while not self._stopped.is_set():
            await self._pause()
            connection = await self._opened(self._random.choice((V1, V2)))
            way = self._random.choice(ways)
            self.tally.counts[way.__name__.strip("_").replace("_", " ")] += 1
            with contextlib.suppress(Cut):
                await connection.ask(self._requests.request_headers())
                await way(connection)
            await connection.close()

    async def _cut_with_events_in_flight(self, connection: V1 | V2) -> None:
        number = 1 if isinstance(connection, V1) else self._random.randrange(1, 20)
        await connection.send([self._requests.request_headers() for _ in range(number)])
        await asyncio.sleep(self._random.choice((0, 0.0002, 0.001)))
        connection.cut()

    async def _cut_in_the_middle_of_a_frame(self, connection: V1 | V2) -> None:
        frame = connection.frame(self._requests.request_headers())
        await connection.write(frame[: self._random.randrange(1, len(frame))])
        await asyncio.sleep(self._random.choice((0, 0.01)))
        connection.cut()

    async def _cut_in_the_middle_of_a_large_frame(self, connection: V1 | V2) -> None:
        length = 9 * MIB
        head = (
            length.to_bytes(4, "big") + b"{"
            if isinstance(connection, V1)
            else frame_beginning(FrameType.REQUEST_BODY_CHUNK, length)
        )
        await connection.write(head + bytes(self._random.randrange(1, MIB)))
        await asyncio.sleep(self._random.choice((0, 0.01)))
        connection.cut()

    async def _write_byte_by_byte(self, connection: V1 | V2) -> None:
        await connection.ask(self._requests.request_headers(), byte_by_byte=True)

    async def _send_garbage(self, connection: V1 | V2) -> None:
        await connection.write(
            self._random.choice(_GARBAGE_V1 if isinstance(connection, V1) else _GARBAGE_V2)
        )
        if not await connection.is_closed_by_agent():
            self.tally.wrong.append(f"v{connection.protocol} connection left open after garbage")
