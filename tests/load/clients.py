"""Clients that measure: one whose sends follow a clock, and one that waits for its answers.

Both are to run in a process of their own (`apart`), so that nothing but the agent makes them wait.
"""

from __future__ import annotations

import gc
import multiprocessing
import re
import select
import struct
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from sentinel_wasm.client import ClientV2, event_v2, request_headers
from sentinel_wasm.protocol.events import EventKind

TICK_S = 0.001
GRACE_S = 5.0  # for the last answers
_READ = 1 << 18
_HEAD = struct.Struct(">IB")
_ID_DIGITS = 8
_ID = re.compile(rb'"correlation_id":"(\d{8})"')
_CONTROL = range(0x30, 0x40)  # what an agent may say of itself, unasked


@dataclass
class Run:
    """What became of the events 0, 1, … of one client; times are of time.monotonic."""

    sent: array[float] = field(default_factory=lambda: array("d"))  # when it was first offered to the socket
    late: array[float] = field(default_factory=lambda: array("d"))  # by how much that was behind the schedule
    answered: array[float] = field(default_factory=lambda: array("d"))  # 0 where no answer came
    answer: array[int] = field(default_factory=lambda: array("l"))  # which of `answers` it was
    answers: list[bytes] = field(default_factory=list)  # the distinct ones, their ids left out
    wrong: list[str] = field(default_factory=list)  # answers twice, answers to nothing, closed connections

    def numbers_by_answer(self) -> list[tuple[dict[str, Any], list[int]]]:
        """Every distinct answer and the events that got it."""
        numbers: list[list[int]] = [[] for _ in self.answers]
        for number, which in enumerate(self.answer):
            if which >= 0:
                numbers[which].append(number)
        return [(orjson.loads(answer), events) for answer, events in zip(self.answers, numbers, strict=True)]

    def unanswered(self) -> int:
        return self.answer.count(-1)

    def waits_ms(self) -> list[float]:
        """From send to answer, in order of length."""
        pairs = zip(self.sent, self.answered, strict=True)
        return sorted((answered - sent) * 1000 for sent, answered in pairs if answered)


def quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@contextmanager
def apart() -> Iterator[Callable[..., Future[Run]]]:
    """`submit(function, *arguments)` to a process that does nothing else, and is warm."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        executor.submit(gc.disable).result()
        yield executor.submit


def follow_clock(path: Path, rate: float, seconds: float, connections: int = 4) -> Run:
    """Send `rate` events a second, those of one tick over one connection, whatever the answers do."""
    wire = _Wire(path, connections)
    total = int(rate * seconds)
    start = time.monotonic()
    while wire.count < total:
        now = time.monotonic()
        due = min(total, int((now - start) * rate))
        if due > wire.count:
            wire.offer([now - start - number / rate for number in range(wire.count, due)])
        wire.read(TICK_S)
    return wire.finish()


def wait_for_answers(path: Path, seconds: float, in_flight: int = 8, connections: int = 4) -> Run:
    """Keep so many events in flight: an answer is followed by the next event."""
    wire = _Wire(path, connections)
    end = time.monotonic() + seconds
    for _ in range(in_flight):
        wire.offer([0.0])
    while time.monotonic() < end:
        for _ in range(wire.read(0.1)):
            wire.offer([0.0])
    return wire.finish()


class _Connection:
    def __init__(self, path: Path) -> None:
        self.client = ClientV2(path)  # kept: it closes the socket when it goes
        self.sock = self.client.sock
        self.sock.setblocking(False)
        self.unsent = bytearray()
        self.unread = bytearray()
        self.lost = ""

    def flush(self) -> None:
        try:
            while self.unsent and not self.lost:
                del self.unsent[: self.sock.send(self.unsent)]
        except BlockingIOError:
            pass
        except ConnectionError as error:
            self.lost = repr(error)

    def answers(self) -> Iterator[bytes]:
        """The payloads of the whole frames that are here; what an agent says of itself is left out."""
        try:
            data = self.sock.recv(_READ)
        except ConnectionError as error:
            data, self.lost = b"", repr(error)
        if not data:
            self.lost = self.lost or "the agent closed the connection"
        self.unread += data
        at = 0
        while len(self.unread) >= at + _HEAD.size:
            length, frame_type = _HEAD.unpack_from(self.unread, at)
            if len(self.unread) < at + 4 + length:
                break
            if frame_type not in _CONTROL:
                yield bytes(self.unread[at + _HEAD.size : at + 4 + length])
            at += 4 + length
        del self.unread[:at]


class _Wire:
    """Events over some connections, and the record of them."""

    def __init__(self, path: Path, connections: int) -> None:
        self._run = Run()
        self._connections = [_Connection(path) for _ in range(connections)]
        self._by_descriptor = {one.sock.fileno(): one for one in self._connections}
        self._poll = select.epoll()
        for descriptor in self._by_descriptor:
            self._poll.register(descriptor, select.EPOLLIN)
        self._turn = 0
        self._kinds: dict[bytes, int] = {}
        self._missing = 0
        self._event = _event_template()

    @property
    def count(self) -> int:
        return len(self._run.sent)

    def offer(self, late: list[float]) -> None:
        """One event for each of `late`, over the connection whose turn it is."""
        run, first, more = self._run, self.count, len(late)
        connection = self._connections[self._turn % len(self._connections)]
        self._turn += 1
        for number in range(first, first + more):
            connection.unsent += self._event % (number, number, number)
        run.sent.extend([time.monotonic()] * more)
        run.late.extend(late)
        run.answered.extend([0.0] * more)
        run.answer.extend([-1] * more)
        self._missing += more
        connection.flush()

    def read(self, timeout_s: float) -> int:
        """Record the answers that come within the time, as soon as there are some; how many."""
        before = self._missing
        for descriptor, _ in self._poll.poll(timeout_s):
            connection = self._by_descriptor[descriptor]
            for payload in connection.answers():
                self._record(payload, time.monotonic())
            if connection.lost:
                self._run.wrong.append(connection.lost)
                self._poll.unregister(descriptor)
        for connection in self._connections:
            connection.flush()
        return before - self._missing

    def finish(self) -> Run:
        """The record, when all answers are here or their time is over."""
        end = time.monotonic() + GRACE_S
        while self._missing and time.monotonic() < end:
            self.read(0.01)
        self.read(0.05)  # an answer too many would come about now
        self._poll.close()
        for connection in self._connections:
            connection.client.close()
        return self._run

    def _record(self, payload: bytes, now: float) -> None:
        run = self._run
        found = _ID.search(payload)
        if found is None or int(found[1]) >= self.count:
            run.wrong.append(f"an answer to nothing: {payload[:500]!r}")
            return
        number = int(found[1])
        if run.answered[number]:
            run.wrong.append(f"a second answer to {number}: {payload[:500]!r}")
            return
        text = payload[: found.start(1)] + payload[found.end(1) :]
        kind = self._kinds.get(text)
        if kind is None:
            kind = self._kinds[text] = len(run.answers)
            run.answers.append(text)
        run.answered[number] = now
        run.answer[number] = kind
        self._missing -= 1


def _event_template() -> bytes:
    """A request_headers frame, to be given its number three times."""
    place = "0" * _ID_DIGITS
    headers = {"accept": ["*/*"], "host": ["example.com"], "user-agent": ["load"]}
    payload = request_headers(place, uri="/products", headers=headers)
    frame = event_v2(EventKind.REQUEST_HEADERS, payload).replace(b"%", b"%%")
    assert frame.count(place.encode()) == 3
    return frame.replace(place.encode(), b"%08d")
