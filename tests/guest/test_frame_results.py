"""What `on_websocket_frame` returns, and what proxies get for it (docs/abi.md, "WebSocket frames")."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_wasm.decision import ALLOWED, Audit, Close, Decision, Drop
from sentinel_wasm.errors import ProtocolError, ResultError
from sentinel_wasm.guest.abi import ON_WEBSOCKET_FRAME, parse_result
from sentinel_wasm.protocol import answers

from . import agent_response

pytestmark = pytest.mark.parallel

SENDABLE = st.one_of(st.integers(1000, 1003), st.integers(1007, 1014), st.integers(3000, 4999))
REASONS = st.text(max_size=123).filter(lambda text: len(text.encode()) <= 123)
TEXTS = st.lists(st.text(max_size=8), max_size=3)


def parse(result: Any) -> Decision:
    return parse_result(json.dumps(result).encode(), ON_WEBSOCKET_FRAME)


def refused(result: Any) -> str:
    with pytest.raises(ResultError) as caught:
        parse(result)
    return str(caught.value)


def answer(decision: Decision) -> dict[str, Any]:
    return agent_response.check(answers.encode(decision, 1, is_frame=True))


def test_frames_are_allowed_dropped_or_end_the_connection() -> None:
    assert parse({"decision": "Allow"}) == Decision(ALLOWED)
    assert parse({"decision": "drop"}).verdict == Drop()
    assert parse({"decision": "close", "code": 4000, "reason": "é"}).verdict == Close(4000, "é")
    assert parse({"decision": "close", "code": None, "reason": None}).verdict == Close(1008, "")


@pytest.mark.parametrize("word", ["block", "deny", "BLOCK"])
def test_a_block_is_a_close_for_a_policy(word: str) -> None:
    """Its status and body are for other hooks."""
    result = {"decision": word, "status": 9, "body": "no", "tags": ["a"]}
    assert parse(result) == Decision(Close(1008, ""), audit=Audit(tags=("a",)))


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({}, "decision is missing, expected allow, drop or close"),
        ({"decision": "redirect"}, "decision is 'redirect', expected allow, drop, close, block or deny"),
        ({"decision": 1}, "decision is an integer, expected a string"),
        ({"decision": "close", "code": "1000"}, "code is a string, expected an integer"),
        ({"decision": "allow", "reason": 1}, "reason is an integer, expected a string"),
        ({"decision": "close", "reason": "é" * 62}, "reason has 124 bytes, expected at most 123"),
        ({"decision": "close", "confidence": 2}, "confidence is 2, expected 0 to 1"),
        ({"decision": "drop", "tags": [1]}, "tags has something that is not a string in it"),
    ],
)
def test_what_breaks_the_rules_is_an_error(result: Any, reason: str) -> None:
    assert refused(result) == f"result of on_websocket_frame: {reason}"


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_536, True])
def test_codes_that_no_close_frame_may_have(code: int) -> None:
    assert refused({"decision": "close", "code": code}).startswith("result of on_websocket_frame: code is ")


@given(st.sampled_from(["allow", "drop", "close"]), SENDABLE, REASONS, TEXTS, TEXTS)
def test_a_strict_proxy_reads_every_decision(
    word: str, code: int, reason: str, tags: list[str], rules: list[str]
) -> None:
    """And the toolkit reads it back from the answer."""
    result = {"decision": word, "code": code, "reason": reason, "tags": tags, "rule_ids": rules}
    decision = parse(result)
    sent = answer(decision)
    assert sent["decision"] == "allow"
    close = {"close": {"code": code, "reason": reason}}
    assert sent["websocket_decision"] == {"allow": "allow", "drop": "drop", "close": close}[word]
    assert sent["audit"]["tags"] == tags
    assert answers.decode(sent) == decision


@pytest.mark.parametrize("websocket", ["pass", 1, {}, {"close": {}}, {"open": {}}, {"close": {"code": 1}}])
def test_an_answer_of_another_shape_is_not_read(websocket: Any) -> None:
    with pytest.raises(ProtocolError, match=r"websocket_decision|code|reason"):
        answers.decode({"decision": "allow", "websocket_decision": websocket})
