"""A hook's result: a ResultError, or an answer that a strict proxy reads."""

from __future__ import annotations

import orjson

from sentinel_wasm._answers import answer as quick_answer
from sentinel_wasm.errors import ResultError
from sentinel_wasm.guest.abi import HOOKS, ON_REQUEST_COMPLETE, parse_configured, parse_result
from sentinel_wasm.protocol import answers
from tests.guest import agent_response

from . import documents
from .targets import Target


def run(data: bytes) -> None:
    if not data:
        return
    hook, result = data[0] % len(HOOKS), data[1:]
    if hook < ON_REQUEST_COMPLETE:
        _decided(hook, result)
    else:
        _configured(result)


def _decided(hook: int, result: bytes) -> None:
    try:
        decision = parse_result(result, hook)
    except ResultError as error:
        assert quick_answer(result, 2) is None
        _log_and_proxy_can_take(error)
        return
    assert quick_answer(result, 2) in (None, answers.encode(decision, 2))
    answer = answers.encode(decision, 2, chunk_index=3)
    checked = agent_response.check(answer)
    # Never a silent allow.
    assert (checked["decision"] == "allow") == (orjson.loads(result)["decision"].lower() == "allow")
    checked["audit"]["custom"] = {"correlation_id": "id-1"}
    assert agent_response.check(answers.with_correlation_id(answer, "id-1")) == checked
    orjson.dumps(decision.summary())


def _configured(result: bytes) -> None:
    try:
        refused = parse_configured(result)
    except ResultError as error:
        _log_and_proxy_can_take(error)
        return
    assert refused == orjson.loads(result).get("error")


def _log_and_proxy_can_take(error: ResultError) -> None:
    """The reason goes to both, as JSON, on every request."""
    assert len(str(error)) < 1000
    orjson.dumps(str(error))


def seeds() -> list[bytes]:
    results: list[dict[str, object]] = [
        {"decision": "allow"},
        {"decision": "block", "status": 429, "body": "slow down", "tags": ["a"], "rule_ids": ["r"]},
        {"decision": "DENY", "reason_codes": ["x"], "confidence": 0.5, "needs_more": True},
        {"decision": "redirect", "status": 307, "body": "https://example.com/"},
        {"decision": "challenge", "challenge_type": "js", "challenge_params": {"n": 1, "b": True, "s": "x"}},
        {"decision": "allow", "routing_metadata": {"pool": "a", "weight": 1.5, "on": False}},
        {"decision": "allow", "confidence": 1, "error": None, "status": None, "body": None},
    ]
    for phase in ("request", "response"):
        results += [
            {
                "decision": "allow",
                f"add_{phase}_headers": {"X-A": "1", "Set-Cookie": ["a=1", "b=2"]},
                f"append_{phase}_headers": {"X-B": "2", "X-C": ["3", "4"]},
                f"remove_{phase}_headers": ["X-D"],
            },
            {"decision": "allow", f"{phase}_body_mutation": {"action": "pass_through", "chunk_index": 3}},
            {"decision": "allow", f"{phase}_body_mutation": {"action": "drop"}},
            {"decision": "allow", f"{phase}_body_mutation": {"action": "replace", "data": "né"}},
            {
                "decision": "allow",
                f"{phase}_body_mutation": {"action": "replace", "data": "aGVsbG8=", "encoding": "base64"},
            },
        ]
    written = [b"\0" + orjson.dumps(result) for result in results]
    return [*written, b'\5{"error":"no"}', b"\5null", b"\1[1]", b'\2{"decision":"\xff"}', b"\3"]


TARGET = Target(run, seeds, documents.mutate)
