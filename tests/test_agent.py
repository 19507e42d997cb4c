"""What the agent does when the agent itself is at fault, and with results that come again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from sentinel_wasm.agent import Agent
from sentinel_wasm.client import request_headers
from sentinel_wasm.errors import FrameError
from sentinel_wasm.guest.abi import ON_REQUEST_HEADERS, ON_RESPONSE_HEADERS
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.module import Module
from sentinel_wasm.link import KEPT, KEPT_BYTES
from sentinel_wasm.protocol.answers import with_correlation_id
from sentinel_wasm.settings import Settings

from .guest.wat import binary
from .wat import module

pytestmark = pytest.mark.parallel

FAR_NS = 2**62
IDS = ["id-1", 'quo"te', "back\\slash", "é\U0001f600", "line\nbreak", "\x00", "{}}}", "x" * 5000]
PAYLOAD = request_headers("id-1")


@pytest.fixture
def broken_agent(monkeypatch: pytest.MonkeyPatch) -> Agent:
    """With a defect in its middle: no input is known to reach one, so one is put in."""

    def defect(*_: object) -> None:
        raise ZeroDivisionError

    wasm = binary(module(on_request_headers='{"decision":"allow"}'))
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


def test_a_defect_is_one_line_with_its_event(broken_agent: Agent) -> None:
    with capture_logs() as log:
        broken_agent.answer_v2(0x10, orjson.dumps(PAYLOAD), 0, no_reply)
    (line,) = log
    assert (line["event"], line["kind"]) == ("internal error, please report it", "internal")
    assert (line["correlation_id"], line["answered"]) == ("id-1", "block 500")
    assert line["reason"] == "internal error: ZeroDivisionError"
    assert isinstance(line["exc_info"], ZeroDivisionError)


def test_a_defect_closes_v2_where_no_id_can_be_salvaged(broken_agent: Agent) -> None:
    with pytest.raises(FrameError, match="without a readable correlation id"):
        broken_agent.answer_v2(0x10, orjson.dumps(request_headers("not \u00e9 salvageable")), 0, no_reply)


# --- Answers that are kept


def make_agent(**results: str) -> Agent:
    wasm = binary(module(**results))
    return Agent(Settings(module=Path("m.wasm")), Module(make_engine(), wasm, "m.wasm"))


def answers_to_all(agent: Agent, identity: str) -> list[bytes]:
    """To a request and its response, of v1 and of v2."""
    events = [
        (0x10, "request_headers", request_headers(identity)),
        (0x12, "response_headers", {"correlation_id": identity, "status": 200, "headers": {"a": ["b"]}}),
    ]
    found = []
    for frame_type, name, payload in events:
        v1 = orjson.dumps({"version": 1, "event_type": name, "payload": payload})
        found.append(agent.answer_v1(v1, FAR_NS, no_reply))
        found.append(agent.answer_v2(frame_type, orjson.dumps(payload), FAR_NS, no_reply))
    return [answer for answer in found if answer is not None]


def test_answers_that_are_kept_are_those_of_a_fresh_agent() -> None:
    results = {
        "on_request_headers": '{"decision":"block","status":403,"body":"{}}}","tags":["a"]}',
        "on_response_headers": '{"decision":"allow","add_response_headers":{"X-A":["1","2"]}}',
    }
    warm = make_agent(**results)
    for identity in IDS:
        answers_to_all(warm, identity)
    assert len(warm._kept) == 4
    for identity in IDS:
        kept, fresh = answers_to_all(warm, identity), answers_to_all(make_agent(**results), identity)
        assert len(kept) == 4
        assert kept == fresh
        v1_request, v2_request, v1_response, v2_response = map(orjson.loads, kept)
        assert v2_request["audit"]["custom"] == v2_response["audit"]["custom"] == {"correlation_id": identity}
        assert v1_request["decision"] == v2_request["decision"] != v1_response["decision"]
    assert len(warm._kept) == 4


short = st.text(max_size=12)
results = st.fixed_dictionaries(
    {"decision": st.sampled_from(["allow", "BLOCK", "deny", "redirect", "challenge", "perhaps"])},
    optional={
        "status": st.one_of(st.integers(90, 610), st.sampled_from([301, 307, 403])),
        "body": short,
        "tags": st.lists(short, max_size=2),
        "confidence": st.floats(0, 1),
        "challenge_type": st.just("js"),
        "routing_metadata": st.dictionaries(short, st.one_of(short, st.integers(0, 9)), max_size=2),
        "add_request_headers": st.dictionaries(st.sampled_from(["X-A", "b"]), short, max_size=2),
        "remove_response_headers": st.lists(st.sampled_from(["X-A", "b"]), max_size=2),
        "needs_more": st.booleans(),
    },
)
ALLOWING = '{"decision":"allow"}'


@pytest.fixture(scope="module")
def keeping() -> Agent:
    return make_agent(on_request_headers=ALLOWING, on_response_headers=ALLOWING)


@given(asked=st.lists(st.tuples(results, st.one_of(st.sampled_from(IDS), short)), min_size=1, max_size=4))
@settings(max_examples=500)
def test_any_result_has_the_same_answer_kept_or_not(keeping: Agent, asked: list[tuple[Any, str]]) -> None:
    agent = keeping
    for result, identity in asked:
        data = orjson.dumps(result)
        for hook in (ON_REQUEST_HEADERS, ON_RESPONSE_HEADERS):
            for version in (1, 2):
                first = agent._result_answer(hook, identity, version, data)
                again = agent._result_answer(hook, "another", version, data)
                agent._kept.clear()
                assert first == again == agent._result_answer(hook, identity, version, data)
                spliced = orjson.loads(with_correlation_id(again, identity))
                assert spliced["audit"].pop("custom") == {"correlation_id": identity}
                plain = orjson.loads(first)
                assert plain["audit"].pop("custom") == {}
                assert spliced == plain


def test_what_is_kept_is_bounded_in_number_and_bytes() -> None:
    agent = make_agent(on_request_headers=ALLOWING)
    most = 0
    for number in range(3 * KEPT):
        body = f"{number} " + "x" * (number * 7 % (2 * KEPT_BYTES))
        result = orjson.dumps({"decision": "block", "body": body})
        answer = agent._result_answer(ON_REQUEST_HEADERS, "a", 1, result)
        assert orjson.loads(answer)["decision"]["block"]["body"] == body
        assert len(agent._kept) <= KEPT
        if number % 100 == 0 or len(agent._kept) == KEPT:
            sizes = [size for key, kept in agent._kept.items() for size in (len(key[0]), len(kept[1]))]
            assert max(sizes) <= KEPT_BYTES
            most = max(most, len(agent._kept))
    assert most == KEPT


def test_a_result_that_is_no_decision_is_not_kept() -> None:
    agent = make_agent(on_request_headers=ALLOWING)
    for _ in range(2):
        answer = agent._result_answer(ON_REQUEST_HEADERS, "a", 1, b'{"decision":"perhaps"}')
        assert orjson.loads(answer)["decision"]["block"]["status"] == 500
    assert not agent._kept
