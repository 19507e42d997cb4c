"""Decisions read from answers: what `encode` writes, and what is no answer."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel_wasm.decision import ALLOW, BodyMutation, Challenge, Decision, Redirect
from sentinel_wasm.errors import ProtocolError, ResultError
from sentinel_wasm.guest.abi import ON_REQUEST_HEADERS, parse_result
from sentinel_wasm.protocol import answers

from .test_answers import DECISION, OTHERS

pytestmark = pytest.mark.parallel


def read(decision: Decision) -> Decision:
    return answers.decode(orjson.loads(answers.encode(decision, 2, chunk_index=7)))


@given(st.fixed_dictionaries({"decision": DECISION}, optional=OTHERS))
@settings(max_examples=500)
def test_a_decision_is_read_as_it_was_written(result: dict[str, Any]) -> None:
    try:
        decision = parse_result(json.dumps(result).encode(), ON_REQUEST_HEADERS)
    except ResultError:
        return
    assert read(decision) == decision


@pytest.mark.parametrize(
    "decision",
    [
        Decision(Redirect("https://example.com/", 308)),
        Decision(Challenge("js", {"a": "b"})),
        Decision(request_body=BodyMutation(b"new", 1), response_body=BodyMutation(b"\xff", 2)),
        Decision(request_body=BodyMutation(b"", 1), response_body=BodyMutation(None, 2)),
    ],
)
def test_so_is_what_modules_say_rarely(decision: Decision) -> None:
    assert read(decision) == decision


def test_a_mutation_of_the_chunk_at_hand_has_its_number() -> None:
    assert read(Decision(response_body=BodyMutation(b"a"))).response_body == BodyMutation(b"a", 7)


def test_what_may_be_left_out_may_be_left_out() -> None:
    """As other agents do."""
    assert answers.decode({"decision": "allow"}) == ALLOW
    assert answers.decode({"decision": "allow", "audit": {"confidence": 1}}).audit.confidence == 1.0


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({}, "decision is not an object with one member"),
        ({"decision": {"block": {}, "allow": {}}}, "decision is not an object with one member"),
        ({"decision": "block"}, "decision is not an object"),
        ({"decision": {"perhaps": {}}}, "decision is 'perhaps', expected allow, block"),
        ({"decision": {"block": {"status": "403"}}}, "status is a string, expected an integer"),
        ({"decision": {"block": None}}, "block is absent or null, expected an object"),
        ({"decision": {"redirect": {"url": "/"}}}, "status is absent or null"),
        (
            {"decision": {"challenge": {"challenge_type": "js", "params": {"a": 1}}}},
            "params has a value that",
        ),
        ({"decision": "allow", "request_headers": {}}, "request_headers is an object, expected an array"),
        ({"decision": "allow", "request_headers": [{"move": {}}]}, "a change in request_headers is 'move'"),
        ({"decision": "allow", "response_headers": ["set"]}, "a change in response_headers is not an object"),
        ({"decision": "allow", "response_headers": [{"set": {"name": "a"}}]}, "value is absent or null"),
        ({"decision": "allow", "audit": {"tags": [1]}}, "tags has something that is not a string"),
        ({"decision": "allow", "audit": {"confidence": "1"}}, "confidence is a string, expected a number"),
        (
            {"decision": "allow", "response_body_mutation": {"data": "%"}},
            "data of response_body_mutation is not base64",
        ),
        ({"decision": "allow", "needs_more": 1}, "needs_more is an integer, expected a boolean"),
    ],
)
def test_what_is_no_answer_is_refused(answer: dict[str, Any], says: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        answers.decode(answer)
    assert says in str(refused.value)


def test_the_correlation_id_is_where_it_was_put() -> None:
    with_id = answers.with_correlation_id(answers.encode(ALLOW, 2), 'a"b')
    assert answers.correlation_id(orjson.loads(with_id)) == 'a"b'
    with pytest.raises(ProtocolError):
        answers.correlation_id(orjson.loads(answers.encode(ALLOW, 2)))
