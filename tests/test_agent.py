"""What the agent does when the agent itself is at fault."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import wasmtime

from sentinel_wasm.agent import Agent
from sentinel_wasm.client import request_headers
from sentinel_wasm.errors import FrameError
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.module import Module
from sentinel_wasm.settings import Settings

from .wat import module

PAYLOAD = request_headers("id-1")


@pytest.fixture
def broken_agent(monkeypatch: pytest.MonkeyPatch) -> Agent:
    """With a defect in its middle: no input is known to reach one, so one is put in."""

    def defect(*_: object) -> None:
        raise ZeroDivisionError

    wasm = bytes(wasmtime.wat2wasm(module(on_request_headers='{"decision":"allow"}')))
    agent = Agent(Settings(module=Path("m.wasm")), Module(make_engine(), wasm, "m.wasm"))
    monkeypatch.setattr(agent, "_ask", defect)
    return agent


def no_reply(*_: object) -> None:
    raise AssertionError("answered later")


def assert_failed_closed(answer: bytes | None) -> None:
    assert answer is not None
    assert orjson.loads(answer)["decision"]["block"]["status"] == 500
    assert orjson.loads(answer)["audit"]["reason_codes"] == ["internal error: ZeroDivisionError"]


def test_a_defect_costs_v1_the_event_alone(broken_agent: Agent) -> None:
    request = {"version": 1, "event_type": "request_headers", "payload": PAYLOAD}
    assert_failed_closed(broken_agent.answer_v1(orjson.dumps(request), 0, no_reply))


def test_a_defect_costs_v2_the_event_alone(broken_agent: Agent) -> None:
    answer = broken_agent.answer_v2(0x10, orjson.dumps(PAYLOAD), 0, no_reply)
    assert_failed_closed(answer)
    assert orjson.loads(answer or b"")["audit"]["custom"] == {"correlation_id": "id-1"}


def test_a_defect_closes_v2_where_no_id_can_be_salvaged(broken_agent: Agent) -> None:
    with pytest.raises(FrameError, match="without a readable correlation id"):
        broken_agent.answer_v2(0x10, orjson.dumps(request_headers("not \u00e9 salvageable")), 0, no_reply)
