"""A closed-loop client of one agent: it keeps events in flight, and checks and times their answers.

Latencies are what this client sees: from sending to reading. Where it is busy all the time, it is in them.
"""

from __future__ import annotations

import itertools
import select
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import orjson

from sentinel_wasm.bench.events import ID_LENGTH, Frame, Request, frames
from sentinel_wasm.client import Client, ClientV1, ClientV2, request_headers
from sentinel_wasm.decision import VERDICTS
from sentinel_wasm.errors import ProtocolError, UserError
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType

if TYPE_CHECKING:
    from typing_extensions import Self

FAILED = "failed"
_ERROR_TAGS = {"wasm-error", "wasm-overload"}
_ID_KEY = b'"correlation_id":"'
_CONTROL = range(FrameType.HEALTH_STATUS, FrameType.FLOW_CONTROL + 1)
STALL_S = 10
_GREETING_S = 3.0
_ANSWERS_KEPT = 4096


@dataclass(frozen=True)
class Run:
    """What one load came to. `answers` by what they decide, `FAILED` where the module or the agent failed.

    `client_busy` is this process's share of one processor.
    """

    seconds: float
    client_busy: float
    times_ns: array[int]
    answers: Counter[str]


class _Sent(NamedTuple):
    """An event in flight: which of the requests', and which event of it."""

    at_ns: int
    request: int
    event: int


def protocol_of(socket: Path) -> int:
    """Which version the agent there speaks; v2 where it speaks both. Raises UserError."""
    try:
        with ClientV2(socket, timeout_s=_GREETING_S):
            return 2
    except (ProtocolError, ConnectionError, TimeoutError):
        pass  # it listens, and answers something else
    except OSError as error:
        raise UserError(f"{socket} cannot be connected to: {error.strerror}") from None
    try:
        with ClientV1(socket, timeout_s=_GREETING_S) as client:
            _decided(orjson.dumps(client.ask(EventKind.REQUEST_HEADERS, request_headers("bench"))))
            return 1
    except (OSError, ProtocolError, ValueError) as error:
        raise UserError(f"{socket}: what listens there answers neither as v2 nor as v1: {error}") from None


class Load:
    """Connections to one agent, for one thread."""

    def __init__(
        self, socket: Path, protocol: int, requests: list[Request], connections: int, in_flight: int
    ) -> None:
        """Raises OSError or ProtocolError where it cannot connect, UserError where a request is none."""
        self.in_flight = in_flight
        self._requests = [frames(request, protocol) for request in requests]
        self._answers = _Answers()
        self._poll = select.poll()
        self._connections: dict[int, _Connection] = {}
        self._open = ExitStack()
        numbers = itertools.count()
        try:
            for _ in range(connections):
                client = ClientV1(socket) if protocol == 1 else ClientV2(socket)
                self._open.enter_context(client)
                self._poll.register(client.sock, select.POLLIN)
                connection = _Connection(client, protocol, self._requests, self._answers, numbers)
                self._connections[client.sock.fileno()] = connection
        except BaseException:
            self.close()
            raise

    def run(self, seconds: float) -> Run:
        """Ask for so long, and wait for what is in flight then.

        Raises OSError or ProtocolError where an answer is wrong or missing.
        """
        times_ns: array[int] = array("q")
        self._answers.counts = Counter()
        busy_ns = time.process_time_ns()
        began_ns = time.monotonic_ns()
        end_ns = began_ns + int(seconds * 1e9)
        for connection in self._connections.values():
            connection.begin(self.in_flight)
        waiting = len(self._connections) * self.in_flight
        while waiting:
            ready = self._poll.poll(STALL_S * 1000)
            if not ready:
                raise TimeoutError(f"no answer for {STALL_S} s")
            for descriptor, _ in ready:
                waiting += self._connections[descriptor].take_turn(times_ns, end_ns)
        took_ns = time.monotonic_ns() - began_ns
        busy_ns = time.process_time_ns() - busy_ns
        return Run(took_ns / 1e9, busy_ns / took_ns, times_ns, self._answers.counts)

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Connection:
    """Its events in flight are in `_waiting`, by their correlation ids; over v1 there is one at a time."""

    def __init__(
        self,
        client: Client,
        protocol: int,
        requests: list[list[Frame]],
        answers: _Answers,
        numbers: Iterator[int],
    ) -> None:
        self._client, self._protocol = client, protocol
        self._requests = requests
        self._answers = answers
        self._numbers = numbers
        self._turns = itertools.cycle(range(len(requests)))
        self._waiting: dict[bytes, _Sent] = {}

    def begin(self, count: int) -> None:
        """Send the first event of so many requests."""
        self._send([self._next_request() for _ in range(count)])

    def take_turn(self, times_ns: array[int], end_ns: int) -> int:
        """Read what is there, and send the next event for each that was answered, until `end_ns`.

        Returns by how many more there are in flight then.
        """
        self._client.read()
        now_ns = time.monotonic_ns()
        answered = 0
        following = []
        while (payload := self._client.next_frame()) is not None:
            if self._protocol == 2 and self._client.frame_type in _CONTROL:
                continue
            identity, answer = self._parted(payload)
            sent = self._waiting.pop(identity, None)
            if sent is None:
                raise ProtocolError(f"an answer to nothing that is in flight: {payload!r:.200}")
            times_ns.append(now_ns - sent.at_ns)
            answered += 1
            decided = self._answers.decided(answer)
            if now_ns < end_ns:
                more = sent.event + 1 < len(self._requests[sent.request])
                following.append(
                    (identity, sent.request, sent.event + 1)
                    if more and decided == "allow"
                    else self._next_request()
                )
        if following:
            self._send(following)
        return len(following) - answered

    def _parted(self, payload: bytes) -> tuple[bytes, bytes]:
        """The correlation id of the event that it answers, and the answer without it."""
        if self._protocol == 1:
            return next(iter(self._waiting), b""), payload
        if self._client.frame_type != FrameType.AGENT_RESPONSE:
            raise ProtocolError(f"a frame of type 0x{self._client.frame_type:02x} instead of an answer")
        at = payload.rfind(_ID_KEY) + len(_ID_KEY)
        end = at + ID_LENGTH
        return payload[at:end], payload[:at] + payload[end:]

    def _next_request(self) -> tuple[bytes, int, int]:
        return b"%0*x" % (ID_LENGTH, next(self._numbers)), next(self._turns), 0

    def _send(self, events: list[tuple[bytes, int, int]]) -> None:
        data = b"".join(identity.join(self._requests[request][event]) for identity, request, event in events)
        now_ns = time.monotonic_ns()
        for identity, request, event in events:
            self._waiting[identity] = _Sent(now_ns, request, event)
        self._client.send(data)


class _Answers:
    """What answers decide, and how many decided so. Answers repeat: each is read once."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._known: dict[bytes, str] = {}

    def decided(self, answer: bytes) -> str:
        """Raises ProtocolError where it is none."""
        decided = self._known.get(answer)
        if decided is None:
            if len(self._known) == _ANSWERS_KEPT:
                self._known.clear()
            decided = self._known[answer] = _decided(answer)
        self.counts[decided] += 1
        return decided


def _decided(answer: bytes) -> str:
    try:
        said = orjson.loads(answer)
        decision = said["decision"]
        verdict = decision if type(decision) is str else next(iter(decision))
        has_failed = not _ERROR_TAGS.isdisjoint(said.get("audit", {}).get("tags", ()))
    except (ValueError, TypeError, LookupError, AttributeError, StopIteration):
        verdict = has_failed = None
    if verdict not in VERDICTS:
        raise ProtocolError(f"what came is no answer to an event: {answer!r:.200}")
    return FAILED if has_failed else verdict
