"""One agent for one faulty module: what it must answer, and that it stays healthy."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path
from typing import Any

import orjson

from sentinel_wasm.client import Client, ClientV1, ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType, encode_v1, encode_v2

from ..conftest import PATIENCE_S, RunningAgent, StartAgent
from .case import FAULTY_URI, Runs, calls_of

TIMEOUT_MS = 250
DEADLINE = f"deadline of {TIMEOUT_MS} ms exceeded"
# How late the best of a few answers may be: a machine under load is late for its own reasons. How exact the
# deadline is where nothing else runs, tests/guest/test_limits.py holds.
MARGIN_MS = 1000
ATTEMPTS = 5
UNKNOWN_TYPE = 0x1E

_BODY = {"data": "Ym9keQ==", "is_last": True, "total_size": 4, "chunk_index": 0}
_PAYLOADS: dict[EventKind, dict[str, Any]] = {
    EventKind.REQUEST_BODY_CHUNK: {**_BODY, "bytes_received": 4},
    EventKind.RESPONSE_BODY_CHUNK: {**_BODY, "bytes_sent": 4},
    EventKind.RESPONSE_HEADERS: {"status": 200, "headers": {}},
    EventKind.REQUEST_COMPLETE: {
        "status": 200,
        "duration_ms": 1,
        "request_body_size": 0,
        "response_body_size": 0,
        "upstream_attempts": 1,
        "error": None,
    },
    EventKind.CONFIGURE: {"agent_id": "wasm", "config": {"a": 1}},
}

Answer = dict[str, Any]


def start(
    start_agent: StartAgent, module: Path, *, fail_open: bool, options: tuple[str, ...] = ()
) -> RunningAgent:
    """An agent with one instance: which instance answered is then no matter of chance."""
    mode = ("--fail-open",) if fail_open else ()
    return start_agent(module, "--pool-size", "1", "--timeout-ms", str(TIMEOUT_MS), *mode, *options)


class Watched:
    """An agent, the good events it has answered and the faulty ones it has got."""

    def __init__(self, agent: RunningAgent, *, fail_open: bool, isolated: bool = False) -> None:
        """`isolated`: each request has an instance of its own."""
        self.agent = agent
        self.fail_open = fail_open
        self.isolated = isolated
        self.calls: int | None = 0  # of the instance; None where unknown
        self.faulty_ids: list[str] = []
        self._numbers = itertools.count()

    def new_id(self, word: str) -> str:
        return f"{word}-{next(self._numbers)}"

    # Good events

    def good(self, client: ClientV1 | ClientV2) -> None:
        """A good event is answered as the module decides, by the instance that is expected."""
        correlation_id = self.new_id("good")
        answer = client.ask(EventKind.REQUEST_HEADERS, request_headers(correlation_id))
        self._count(answer)
        if isinstance(client, ClientV2):
            assert answer["audit"]["custom"] == {"correlation_id": correlation_id}

    # Faulty events

    def faulty(self, client: ClientV1 | ClientV2, case: Runs) -> tuple[Answer, float]:
        """The answer to a faulty event, and how many ms it took."""
        if case.event is EventKind.REQUEST_HEADERS:
            return self.faulty_uri(client, FAULTY_URI)
        return self._ask_faulty(client, case.event, _PAYLOADS[case.event])

    def faulty_uri(self, client: ClientV1 | ClientV2, uri: str) -> tuple[Answer, float]:
        """The answer to a POST of this path, and how many ms it took."""
        return self._ask_faulty(client, EventKind.REQUEST_HEADERS, request_headers("", "POST", uri))

    def _ask_faulty(
        self, client: ClientV1 | ClientV2, kind: EventKind, payload: dict[str, Any]
    ) -> tuple[Answer, float]:
        correlation_id = self.new_id("faulty")
        self.faulty_ids.append(correlation_id)
        payload = {**payload, "correlation_id": correlation_id}
        if "metadata" in payload:
            payload["metadata"] = {**payload["metadata"], "correlation_id": correlation_id}
        began = time.monotonic()
        answer = client.ask(kind, payload)
        took_ms = (time.monotonic() - began) * 1000
        if isinstance(client, ClientV2):
            assert answer["audit"]["custom"] == {"correlation_id": correlation_id}
        return answer, took_ms

    def check_faulty(self, case: Runs, answer: Answer) -> None:
        """The answer is what the case and the fail mode ask for."""
        if case.reason is None:
            self._count(answer)
        elif case.event is EventKind.CONFIGURE:
            check_rejected(answer, case.reason)
        else:
            check_failure(answer, case.reason, fail_open=self.fail_open)
        if case.survives is None:
            self.calls = None
        elif not case.survives:
            self.calls = 0

    def _count(self, answer: Answer) -> None:
        calls = check_good(answer, self.calls)
        self.calls = 0 if self.isolated else calls

    # The log

    def failure_lines(self, pattern: str) -> list[dict[str, Any]]:
        return [line for line in self.agent.lines() if says(pattern, str(line.get("reason", "")))]

    def wait_for_failure_lines(self, pattern: str, count: int) -> None:
        """Exactly so many lines of the log say it, or are counted: one for each faulty event."""

        def said() -> int:
            return sum(1 + line.get("left_out", 0) for line in self.failure_lines(pattern))

        end = time.monotonic() + PATIENCE_S
        while said() < count and time.monotonic() < end:
            time.sleep(0.01)
        assert said() == count, self.agent.log

    def stop(self) -> None:
        """It was alive until now, ends well, and its log has nothing that only its makers understand."""
        assert self.agent.process.poll() is None, self.agent.log
        assert self.agent.stop() == 0, self.agent.log
        log = self.agent.log
        for word in ("Traceback", "internal error", "panicked"):
            assert word not in log, log
        assert not self.failure_lines("0x[0-9a-f]{4}")
        assert log.count("\n") < 1000


def check_good(answer: Answer, calls: int | None) -> int:
    """It is the module's own answer; gives the instance's calls, this one included.

    `calls`: those before, or None where they are not known.
    """
    assert answer["decision"] == {"block": {"status": 403, "body": "by the rule", "headers": None}}, answer
    (tag,) = answer["audit"]["tags"]
    told = calls_of(tag)
    assert calls is None or told == (calls + 1) % 256, f"call {told} of its instance after {calls}"
    return told


def says(pattern: str, reason: str) -> bool:
    """A worker that a busy machine keeps from reporting is not waited for: where it was is not known then."""
    return bool(re.search(pattern, reason)) or (reason == DEADLINE and DEADLINE in pattern)


def check_failure(answer: Answer, reason: str, *, fail_open: bool) -> None:
    if fail_open:
        assert answer["decision"] == "allow", answer
        assert sorted(answer["audit"]["tags"]) == ["fail-open", "wasm-error"]
    else:
        assert answer["decision"] == {"block": {"status": 500, "body": "Wasm Error", "headers": None}}, answer
        assert answer["audit"]["tags"] == ["wasm-error"]
    (told,) = answer["audit"]["reason_codes"]
    assert says(reason, told), told
    assert "0x" not in told


def check_rejected(answer: Answer, reason: str) -> None:
    """A configuration that the module does not take is refused in either mode: the old one stays."""
    rejected = {"status": 500, "body": "Configuration rejected", "headers": None}
    assert answer["decision"] == {"block": rejected}, answer
    (told,) = answer["audit"]["reason_codes"]
    assert re.search(reason, told), told


def check_answers_at_all(client: ClientV2) -> None:
    """Ping is ponged, and an event of a type from the future is allowed."""
    client.send(encode_v2(FrameType.PING, b'{"n":1}'))
    assert (client.receive(), client.frame_type) == (b'{"n":1}', FrameType.PONG)
    client.send(encode_v2(UNKNOWN_TYPE, b'{"correlation_id":"later"}'))
    answer = orjson.loads(client.receive())
    assert (answer["decision"], answer["audit"]["custom"]) == ("allow", {"correlation_id": "later"})


def check_answers_at_all_v1(client: Client) -> None:
    client.send(encode_v1(b'{"version":1,"event_type":"from_the_future","payload":{}}'))
    assert orjson.loads(client.receive())["decision"] == "allow"
