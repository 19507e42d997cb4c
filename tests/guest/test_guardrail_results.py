"""What `on_guardrail` returns, and what proxies get for it (docs/abi.md, "Guardrails")."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_wasm.decision import ALLOWED, Block, Decision, Detection, Findings
from sentinel_wasm.errors import ProtocolError, ResultError
from sentinel_wasm.guest.abi import ON_GUARDRAIL, parse_result
from sentinel_wasm.protocol import answers

from . import agent_response

pytestmark = pytest.mark.parallel

SEVERITIES = ("low", "medium", "high", "critical")
SPANS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).map(sorted)
DETECTIONS = st.fixed_dictionaries(
    {"category": st.text(max_size=8), "description": st.text(max_size=8)},
    optional={
        "severity": st.sampled_from(SEVERITIES),
        "confidence": st.floats(0, 1),
        "span": SPANS.map(lambda span: {"start": span[0], "end": span[1]}),
    },
)
FOUND = {"category": "email", "description": "an address"}


def parse(result: Any) -> Decision:
    return parse_result(json.dumps(result).encode(), ON_GUARDRAIL)


def sent(decision: Decision) -> dict[str, Any]:
    return agent_response.check(answers.encode(decision, 2))


def test_nothing_found_is_said_too() -> None:
    decision = parse({"detected": False})
    assert decision == Decision(ALLOWED, findings=Findings(detected=False))
    answer = sent(decision)
    assert answer["decision"] == "allow"
    assert json.loads(answer["routing_metadata"]["guardrail_response"]) == {
        "detected": False,
        "confidence": 0.0,
        "detections": [],
    }


def test_what_is_detected_is_a_block_for_who_reads_no_findings() -> None:
    result = {
        "detected": True,
        "confidence": 0.5,
        "detections": [{**FOUND, "severity": "HIGH", "span": {"start": 3, "end": 9}, "later": 1}],
        "redacted_content": "to ******",
        "tags": ["pii"],
    }
    decision = parse(result)
    detection = Detection("email", "an address", "high", None, (3, 9))
    assert decision.verdict == Block()
    assert decision.findings == Findings(True, 0.5, (detection,), "to ******")
    assert (decision.audit.tags, decision.audit.confidence) == (("pii",), 0.5)
    answer = sent(decision)
    assert answer["decision"] == {"block": {"status": 403, "body": None, "headers": None}}
    assert json.loads(answer["routing_metadata"]["guardrail_response"]) == {
        "detected": True,
        "confidence": 0.5,
        "detections": [{**FOUND, "severity": "high", "span": {"start": 3, "end": 9}}],
        "redacted_content": "to ******",
    }


def test_what_is_surely_detected_need_not_say_so() -> None:
    decision = parse({"detected": True})
    assert decision.findings is not None
    assert (decision.findings.confidence, decision.audit.confidence) == (1.0, None)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({}, "detected is missing, expected true or false"),
        ({"decision": "block"}, "detected is missing, expected true or false"),
        ({"detected": 1}, "detected is an integer, expected a boolean"),
        ({"detected": True, "confidence": "1"}, "confidence is a string, expected a number"),
        ({"detected": True, "redacted_content": 1}, "redacted_content is an integer, expected a string"),
        ({"detected": True, "detections": {}}, "detections is an object, expected an array"),
        ({"detected": True, "detections": [FOUND, 1]}, "detections[1] is an integer, expected an object"),
    ],
)
def test_what_breaks_the_rules_is_an_error(result: Any, reason: str) -> None:
    with pytest.raises(ResultError) as caught:
        parse(result)
    assert str(caught.value) == f"result of on_guardrail: {reason}"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("category", None, "category is missing"),
        ("description", None, "description is missing"),
        ("category", 1, "category is an integer, expected a string"),
        ("severity", "worst", "severity is 'worst', expected low, medium, high or critical"),
        ("confidence", -0.1, "confidence is -0.1, expected 0 to 1"),
        ("span", [0, 1], "span is an array, expected an object"),
        ("span", {"start": 0}, "end of span is null, expected an integer"),
        ("span", {"start": 0.0, "end": 1}, "start of span is a number, expected an integer"),
        ("span", {"start": 2, "end": 1}, "span is 2 to 1, expected bytes of the content"),
        ("span", {"start": -1, "end": 1}, "span is -1 to 1, expected bytes of the content"),
        ("span", {"start": 0, "end": 2**32}, "span is 0 to 4294967296, expected bytes of the content"),
    ],
)
def test_a_detection_that_breaks_them_says_which(field: str, value: Any, reason: str) -> None:
    with pytest.raises(ResultError) as caught:
        parse({"detected": True, "detections": [{**FOUND, field: value}]})
    assert str(caught.value) == f"result of on_guardrail: detections[0]: {reason}"


@given(
    st.fixed_dictionaries(
        {"detected": st.booleans(), "detections": st.lists(DETECTIONS, max_size=4)},
        optional={"confidence": st.floats(0, 1), "redacted_content": st.text(max_size=20)},
    )
)
def test_a_strict_proxy_reads_every_result(result: dict[str, Any]) -> None:
    """And the toolkit reads it back from the answer."""
    decision = parse(result)
    answer = sent(decision)
    said = json.loads(answer["routing_metadata"]["guardrail_response"])
    assert said["detections"] == [{"severity": "medium", **found} for found in result["detections"]]
    assert {**said, **result, "detections": said["detections"]} == said
    assert answers.decode(answer) == decision


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"detected":true,"confidence":"1"}',
        '{"detected":true,"detections":[1]}',
        '{"detected":true,"detections":[{"category":"a"}]}',
        '{"detected":true,"detections":[{"category":"a","description":"b","severity":"worst"}]}',
        '{"detected":true,"detections":[{"category":"a","description":"b","span":{"start":1}}]}',
    ],
)
def test_findings_of_another_shape_are_not_read(text: str) -> None:
    with pytest.raises(ProtocolError):
        answers.decode({"decision": "allow", "routing_metadata": {"guardrail_response": text}})
