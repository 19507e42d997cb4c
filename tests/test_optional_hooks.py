"""WebSocket frames and guardrails at a whole agent: what modules get, and what proxies get for that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from sentinel_wasm._instances import live_stores
from sentinel_wasm.agent import Agent
from sentinel_wasm.client import request_headers
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.engine import Engine, make_engine
from sentinel_wasm.guest.module import Module
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType
from sentinel_wasm.settings import Settings

from .answering import AskedAgent
from .conftest import BuildWat, StartAgent, until
from .guest import agent_response, wat

pytestmark = pytest.mark.parallel

Start = Callable[..., AskedAgent]

FRAME = {
    "correlation_id": "r",
    "opcode": "text",
    "data": "aGk=",
    "client_to_server": True,
    "frame_index": 3,
    "fin": False,
    "route_id": "chat",
    "client_ip": "[::1]:53818",
}
CONTENT = {
    "correlation_id": "r",
    "inspection_type": "pii_detection",
    "content": 'a "é"',
    "model": "m",
    "categories": ["email"],
    "route_id": "llm",
    "metadata": {"k": "v"},
}
BOTH = (
    (FrameType.WEBSOCKET_FRAME, FRAME, "on_websocket_frame"),
    (FrameType.GUARDRAIL_INSPECT, CONTENT, "on_guardrail"),
)
CLOSED = {"close": {"code": 1011, "reason": "Wasm Error"}}
REFUSED = {"block": {"status": 500, "body": "Wasm Error", "headers": None}}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = make_engine()
    yield engine
    engine.end()


@pytest.fixture
def start(engine: Engine) -> Iterator[Start]:
    agents: list[AskedAgent] = []

    def started(text: str, **options: Any) -> AskedAgent:
        settings = Settings(module=Path("m.wasm"), pool_size=2, timeout_ms=5000, **options)
        agents.append(AskedAgent(Agent(settings, Module(engine, wat.binary(text), "m.wasm"))))
        return agents[-1]

    yield started
    for asked in agents:
        asked.close()


def ask(asked: AskedAgent, kind: FrameType, payload: Any) -> dict[str, Any]:
    return agent_response.check(asked.v2(kind, orjson.dumps(payload)))


def ask_v1(asked: AskedAgent, name: str, payload: Any) -> dict[str, Any]:
    request = {"version": 1, "event_type": name, "payload": payload}
    return agent_response.check(asked.v1(orjson.dumps(request)))


# What the module reads, and what is made of its results


def logging(hook: str) -> str:
    """A hook that writes its event to the log, and says nothing."""
    return wat.hook("(call $log (i32.const 2) (local.get $p) (local.get $n)) (i64.const 0)", hook)


LOGGING = wat.module(
    logging("on_websocket_frame"),
    logging("on_guardrail"),
    imports=wat.imported("sentinel.log", "i32 i32 i32"),
    pages=4,
)


def test_modules_read_all_of_an_event(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(LOGGING), "--verbose")
    with agent.v1() as old, agent.v2() as new:
        assert old.ask(EventKind.WEBSOCKET_FRAME, FRAME)["websocket_decision"] == "allow"
        assert new.ask(EventKind.WEBSOCKET_FRAME, {**FRAME, "data": "/wA="})["websocket_decision"] == "allow"
        assert new.ask(EventKind.GUARDRAIL_INSPECT, CONTENT)["routing_metadata"] == {}
    until(lambda: len(agent.lines("guest output")) == 3 == len(agent.lines("decided")))
    frame = {**FRAME, "client_ip": "::1"}
    assert [orjson.loads(line["text"]) for line in agent.lines("guest output")] == [
        {**frame, "encoding": "utf-8", "data": "hi"},
        {**frame, "encoding": "base64", "data": "/wA="},
        CONTENT,
    ]
    decided = [(line["hook"], line["decision"]) for line in agent.lines("decided")]
    assert decided == [("on_websocket_frame", "allow")] * 2 + [("on_guardrail", "allow")]


def test_results_become_decisions_over_both_protocols(start: Start) -> None:
    frame = b'{"decision":"close","code":1003,"reason":"text only","tags":["t"]}'
    found = b'{"detected":true,"detections":[{"category":"email","description":"d"}]}'
    asked = start(wat.module(wat.says(frame, BOTH[0][2]), wat.says(found, BOTH[1][2], at=wat.RESULT + 1024)))
    close = {"close": {"code": 1003, "reason": "text only"}}
    findings = {"detected": True, "confidence": 1.0}
    for _ in range(2):  # the second answer is a kept one
        for answer in (
            ask(asked, FrameType.WEBSOCKET_FRAME, FRAME),
            ask_v1(asked, "web_socket_frame", FRAME),
            ask_v1(asked, "websocket_frame", FRAME),
        ):
            assert (answer["decision"], answer["websocket_decision"]) == ("allow", close)
            assert answer["audit"]["tags"] == ["t"]
        for answer in (
            ask(asked, FrameType.GUARDRAIL_INSPECT, CONTENT),
            ask_v1(asked, "guardrail_inspect", CONTENT),
        ):
            said = orjson.loads(answer["routing_metadata"]["guardrail_response"])
            assert {**said, **findings} == said
            assert answer["websocket_decision"] is None
    hooks = dict(zip(abi.EVENT_HOOKS, asked.agent.counts.decisions_by_hook, strict=True))
    assert hooks["on_websocket_frame"] == [0, 0, 0, 0, 0, 6]
    assert hooks["on_guardrail"] == [0, 4, 0, 0, 0, 0]


def test_without_the_hooks_both_are_allowed(start: Start) -> None:
    asked = start(wat.module(wat.says('{"decision":"block"}')))
    assert ask(asked, FrameType.WEBSOCKET_FRAME, FRAME)["websocket_decision"] == "allow"
    answer = ask(asked, FrameType.GUARDRAIL_INSPECT, CONTENT)
    assert (answer["decision"], answer["routing_metadata"]) == ("allow", {})


# Failures


FAILING = wat.module(*(wat.hook("unreachable", hook) for _, _, hook in BOTH))
NONSENSE = wat.module(*(wat.says('{"decision":"redirect"}', hook) for _, _, hook in BOTH))


@pytest.mark.parametrize("text", [FAILING, NONSENSE])
@pytest.mark.parametrize("dispatch", ["inline", "threads"])
def test_failures_end_the_websocket_and_count_as_detected(start: Start, text: str, dispatch: str) -> None:
    asked = start(text, dispatch=dispatch)
    answer = ask(asked, FrameType.WEBSOCKET_FRAME, FRAME)
    assert (answer["decision"], answer["websocket_decision"]) == ("allow", CLOSED)
    assert answer["audit"]["tags"] == ["wasm-error"]
    assert "on_websocket_frame" in answer["audit"]["reason_codes"][0]
    answer = ask(asked, FrameType.GUARDRAIL_INSPECT, CONTENT)
    assert (answer["decision"], answer["routing_metadata"]) == (REFUSED, {})


def test_failures_allow_with_fail_open(start: Start) -> None:
    asked = start(FAILING, fail_open=True)
    answer = ask(asked, FrameType.WEBSOCKET_FRAME, FRAME)
    assert answer["websocket_decision"] == "allow"
    assert answer["audit"]["tags"] == ["wasm-error", "fail-open"]
    assert ask(asked, FrameType.GUARDRAIL_INSPECT, CONTENT)["decision"] == "allow"


@pytest.mark.parametrize(
    "wrong",
    [
        {"opcode": None},
        {"data": "no base64"},
        {"data": 1},
        {"client_to_server": "yes"},
        {"frame_index": "0"},
        {"fin": 1},
        {"route_id": 1},
        {"client_ip": 1},
    ],
)
def test_a_frame_that_is_none_ends_the_websocket(start: Start, wrong: dict[str, Any]) -> None:
    asked = start(FAILING)
    for answer in (
        ask(asked, FrameType.WEBSOCKET_FRAME, FRAME | wrong),
        ask_v1(asked, "web_socket_frame", FRAME | wrong),
    ):
        assert answer["websocket_decision"] == CLOSED
        assert "event not understood" in answer["audit"]["reason_codes"][0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"inspection_type": None},
        {"content": None},
        {"content": 1},
        {"model": 1},
        {"categories": "email"},
        {"categories": [1]},
        {"route_id": 1},
        {"metadata": []},
        {"metadata": {"k": 1}},
    ],
)
def test_a_content_that_is_none_is_an_error(start: Start, wrong: dict[str, Any]) -> None:
    answer = ask(start(FAILING), FrameType.GUARDRAIL_INSPECT, CONTENT | wrong)
    assert answer["decision"] == REFUSED
    assert "event not understood" in answer["audit"]["reason_codes"][0]


# Which instance


# Allows a request; drops its frames, and finds something in its contents, once it has seen the request.
DROPS, FINDS = b'{"decision":"drop"}', b'{"detected":true}'
REMEMBERING = wat.module(
    wat.data(wat.RESULT, DROPS),
    wat.data(wat.RESULT + 64, FINDS),
    wat.hook("(i32.store (i32.const 256) (i32.const 1)) (i64.const 0)"),
    *(
        wat.hook(
            f"(if (result i64) (i32.load (i32.const 256)) (then {wat.returns(at, len(result))})"
            " (else (i64.const 0)))",
            hook,
        )
        for hook, at, result in (
            ("on_websocket_frame", wat.RESULT, DROPS),
            ("on_guardrail", wat.RESULT + 64, FINDS),
        )
    ),
)


def opening(identity: str) -> dict[str, Any]:
    return request_headers(identity, headers={"Upgrade": ["WebSocket"], "connection": ["Upgrade"]})


@pytest.mark.parametrize("dispatch", ["auto", "threads"])
@pytest.mark.parametrize("isolation", ["pooled", "request"])
def test_a_requests_instance_stays_for_what_follows(start: Start, dispatch: str, isolation: str) -> None:
    asked = start(REMEMBERING, dispatch=dispatch, isolation=isolation)
    for number in range(10):
        ask(asked, FrameType.REQUEST_HEADERS, opening(f"{number}"))
    for number in range(10):
        of = {"correlation_id": f"{number}"}
        frames = [ask(asked, FrameType.WEBSOCKET_FRAME, FRAME | of)["websocket_decision"] for _ in range(3)]
        assert frames == ["drop"] * 3
        assert ask(asked, FrameType.GUARDRAIL_INSPECT, CONTENT | of)["decision"] != "allow"


FRAMES_ONLY = wat.module(
    wat.says('{"decision":"allow"}'), wat.says('{"decision":"close"}', "on_websocket_frame", at=20_000)
)


@pytest.mark.parametrize("verbose", [False, True])  # with it, the Python path answers
def test_only_a_websocket_keeps_its_instance_and_a_close_ends_it(start: Start, *, verbose: bool) -> None:
    asked = start(FRAMES_ONLY, isolation="request", verbose=verbose)

    def answered(payload: Any) -> None:
        frame = orjson.dumps(payload)
        if (
            verbose
            or asked.agent.quick.answer_frame(FrameType.REQUEST_HEADERS, frame, time.monotonic_ns()) is None
        ):
            assert verbose
            asked.v2(FrameType.REQUEST_HEADERS, frame)

    before = live_stores()
    for number in range(5):
        answered(request_headers(f"{number}", headers={"X-Upgrade": ["websocket"]}))
    assert live_stores() == before
    answered(opening("r"))
    assert live_stores() == before + 1
    assert ask(asked, FrameType.WEBSOCKET_FRAME, FRAME)["websocket_decision"] != "allow"
    assert live_stores() == before


def test_large_events_leave_the_event_loop(start: Start) -> None:
    large = "a" * 100_000
    for kind, payload in (
        (FrameType.WEBSOCKET_FRAME, FRAME | {"data": large}),
        (FrameType.GUARDRAIL_INSPECT, CONTENT | {"content": large}),
    ):
        asked = start(LOGGING)
        ask(asked, kind, payload)
        assert sum(asked.agent.counts.wait_times[0]) == 1
