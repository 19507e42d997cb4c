"""An agent that is upgraded in place, and clients that must not notice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson

from sentinel_wasm.client import ClientV2, event_v1, event_v2, request_headers
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType
from sentinel_wasm.server.sockets import control_path

from .conftest import RunningAgent, has_ended, until
from .wat import module, quoted

if TYPE_CHECKING:
    from typing_extensions import Self


# Blocks once it has been given a configuration that is not empty.
BLOCKS_WHEN_CONFIGURED = module(f"""
  (global $configured (mut i32) (i32.const 0))
  (data (i32.const 4096) "{quoted('{"decision":"block"}')}")
  (func (export "on_configure") (param i32 i32) (result i64)
    (global.set $configured (i32.gt_u (local.get 1) (i32.const 20)))
    (i64.const 0))
  (func (export "on_request_headers") (param i32 i32) (result i64)
    (if (global.get $configured) (then (return (i64.const {(4096 << 32) | 20}))))
    (i64.const 0))
""")


def asked(identity: str, *, bad: bool = False) -> dict[str, Any]:
    """A request that the security example allows, or one that it blocks."""
    uri = "/../etc/passwd" if bad else "/"
    return request_headers(identity, uri=uri, headers={"User-Agent": ["Mozilla/5.0"], "Accept": ["*/*"]})


def frame_v2(identity: str, *, bad: bool) -> bytes:
    return event_v2(EventKind.REQUEST_HEADERS, asked(identity, bad=bad))


def frame_v1(identity: str, *, bad: bool) -> bytes:
    return event_v1(EventKind.REQUEST_HEADERS, asked(identity, bad=bad))


def is_blocked(answer: dict[str, Any]) -> bool:
    return "block" in answer["decision"]


def lines(agent: RunningAgent, event: str) -> list[dict[str, Any]]:
    """Of the log, which also has what a process that cannot start says, as text."""
    whole = agent.log.rpartition("\n")[0].splitlines()
    said: list[dict[str, Any]] = [orjson.loads(line) for line in whole if line.startswith("{")]
    return [line for line in said if line["event"] == event]


class Upgrading:
    """`pid` is the process that serves now; at the end, the last of them must stop as an agent does."""

    def __init__(self, agent: RunningAgent) -> None:
        self.agent = agent
        self.pid = agent.process.pid
        self.upgrades = 0

    def begin(self) -> None:
        os.kill(self.pid, signal.SIGUSR2)

    def finish(self) -> dict[str, Any]:
        """Wait until the next process has it all, and give what it says of that."""
        self.upgrades += 1
        until(lambda: len(lines(self.agent, "taken over")) == self.upgrades)
        old, self.pid = self.pid, int(str(lines(self.agent, "upgrade: a new process starts")[-1]["pid"]))
        if old == self.agent.process.pid:
            assert self.agent.process.wait(15) == 0
        until(lambda: has_ended(old))
        return lines(self.agent, "taken over")[-1]

    def upgrade(self) -> dict[str, Any]:
        self.begin()
        return self.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.upgrades:
            os.kill(self.pid, signal.SIGTERM)
            until(lambda: has_ended(self.pid))
            if error is None:
                assert not self.agent.socket.exists()
                assert not control_path(self.agent.socket).exists()


class Stream:
    """A v2 connection with so many events in flight all the time, from a thread of its own."""

    def __init__(self, path: Path, in_flight: int) -> None:
        self.answered = 0
        self.longest_s = 0.0
        self._client = ClientV2(path, timeout_s=30)
        self._in_flight = in_flight
        self._sent: dict[str, tuple[bool, float]] = {}
        self._numbers: Iterator[int] = iter(range(10**9))
        self._stops = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Raises what went wrong: an answer that is missing, wrong or there twice."""
        self._stops.set()
        self._thread.join(40)
        self._client.close()
        if self._error is not None:
            raise self._error
        assert not self._sent

    def _run(self) -> None:
        try:
            for _ in range(self._in_flight):
                self._send()
            while self._sent:
                self._receive()
                if not self._stops.is_set():
                    self._send()
        except BaseException as error:
            self._error = error

    def _send(self) -> None:
        number = next(self._numbers)
        identity, bad = f"stream-{number}", number % 3 == 0
        self._sent[identity] = bad, time.monotonic()
        frame = frame_v2(identity, bad=bad)
        # Cut somewhere: a process has to go on in the middle of it.
        cut = number % len(frame)
        self._client.send(frame[:cut])
        self._client.send(frame[cut:])

    def _receive(self) -> None:
        answer = orjson.loads(self._client.receive())
        assert self._client.frame_type == FrameType.AGENT_RESPONSE, self._client.frame_type
        bad, sent = self._sent.pop(answer["audit"]["custom"]["correlation_id"])
        assert is_blocked(answer) is bad, answer
        self.answered += 1
        self.longest_s = max(self.longest_s, time.monotonic() - sent)
