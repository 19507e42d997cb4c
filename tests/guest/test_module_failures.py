"""What the proxy and the log get when the module fails (guest-abi.md, "When the module fails")."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from sentinel_wasm.agent import Agent
from sentinel_wasm.settings import Settings

from ..answering import AskedAgent
from . import agent_response, wat
from .conftest import LIMIT_MS, PATIENT_MS, Load
from .wat import PAGE, RESULT, WASI, returns

pytestmark = pytest.mark.parallel

SLEEPS = wat.module(
    # A subscription of zeros but for its time, 3 s.
    wat.data(2048 + 24, (3 * 10**9).to_bytes(8, "little")),
    wat.hook(
        "(drop (call $poll_oneoff (i32.const 2048) (i32.const 4096) (i32.const 1) (i32.const 600)))"
        "(i64.const 0)"
    ),
    imports=wat.imported(f"{WASI}.poll_oneoff", "i32 i32 i32 i32", "i32"),
)
FAILURES = {
    "trap": (wat.module(wat.hook("unreachable")), "trap: unreachable in on_request_headers"),
    "no memory": (
        wat.module(wat.says("{}"), alloc="(i32.const 0)"),
        "out of memory in the guest: alloc returned 0 for on_request_headers",
    ),
    "outside": (
        wat.module(wat.hook(returns(PAGE, 1))),
        "the result of on_request_headers lies outside the memory",
    ),
    "exit": (
        wat.module(
            wat.hook("(call $proc_exit (i32.const 3)) (i64.const 0)"),
            imports=wat.imported(f"{WASI}.proc_exit", "i32"),
        ),
        "the module called proc_exit(3) in on_request_headers",
    ),
    "deadline": (SLEEPS, "deadline of 40 ms exceeded in on_request_headers"),
    "no UTF-8": (wat.module(wat.says(b'"\xff"')), "result of on_request_headers is not UTF-8"),
    "no JSON": (wat.module(wat.says("allow")), "result of on_request_headers is not JSON: "),
    "no decision": (wat.module(wat.says("{}")), "result of on_request_headers: decision is missing"),
    "status": (
        wat.module(wat.says('{"decision": "block", "status": 99}')),
        "result of on_request_headers: status",
    ),
}


class StartAgent(Protocol):
    def __call__(self, text: str, *, fail_open: bool = False) -> AskedAgent: ...


@pytest.fixture
def start_agent(load: Load) -> Iterator[StartAgent]:
    """Agents without sockets, of modules given as text; they are closed afterwards."""
    started: list[AskedAgent] = []

    def start_agent(text: str, *, fail_open: bool = False) -> AskedAgent:
        timeout_ms = LIMIT_MS if text == SLEEPS else PATIENT_MS
        settings = Settings(
            module=Path("filter.wasm"), pool_size=1, fail_open=fail_open, timeout_ms=timeout_ms
        )
        started.append(AskedAgent(Agent(settings, load(text))))
        return started[-1]

    yield start_agent
    for agent in started:
        agent.close()


HEADERS = {
    "metadata": {"correlation_id": "id-1", "client_ip": "::1"},
    "method": "GET",
    "uri": "/",
    "headers": {},
}
RESPONSE = {"correlation_id": "id-1", "status": 200, "headers": {}}
COMPLETE = {"correlation_id": "id-1", "status": 200}


def answer(agent: AskedAgent, event_type: str = "request_headers", payload: Any = HEADERS) -> dict[str, Any]:
    """The answer to a v1 event, checked as a strict proxy would."""
    request = {"version": 1, "event_type": event_type, "payload": payload}
    return agent_response.check(agent.v1(json.dumps(request).encode()))


def answer_v2(agent: AskedAgent) -> dict[str, Any]:
    raw = agent.v2(0x10, json.dumps({"correlation_id": "id-1", **HEADERS}).encode())
    return agent_response.check(raw)


@pytest.mark.parametrize("failure", FAILURES)
def test_failing_module_blocks(start_agent: StartAgent, failure: str) -> None:
    response = answer(start_agent(FAILURES[failure][0]))
    assert response["decision"] == {"block": {"status": 500, "body": "Wasm Error", "headers": None}}
    assert response["audit"]["tags"] == ["wasm-error"]


@pytest.mark.parametrize("failure", FAILURES)
def test_failing_module_allows_under_fail_open(start_agent: StartAgent, failure: str) -> None:
    response = answer(start_agent(FAILURES[failure][0], fail_open=True))
    assert response["decision"] == "allow"
    assert sorted(response["audit"]["tags"]) == ["fail-open", "wasm-error"]


@pytest.mark.parametrize("fail_open", [True, False])
@pytest.mark.parametrize("failure", FAILURES)
def test_reason_is_in_the_answer_and_in_one_line_of_the_log(
    start_agent: StartAgent, log: list[Any], failure: str, fail_open: bool
) -> None:
    text, reason = FAILURES[failure]
    (told,) = answer(start_agent(text, fail_open=fail_open))["audit"]["reason_codes"]
    assert told.startswith(reason)
    (line,) = [line for line in log if line["log_level"] == "error"]
    assert (line["log_level"], line["correlation_id"], line["reason"]) == ("error", "id-1", told)


@pytest.mark.parametrize("failure", FAILURES)
def test_v2_fails_alike(start_agent: StartAgent, failure: str) -> None:
    text, _ = FAILURES[failure]
    first, second = answer(start_agent(text)), answer_v2(start_agent(text))
    assert second.pop("version") == 2
    assert second["audit"].pop("custom") == {"correlation_id": "id-1"}
    del first["version"], first["audit"]["custom"]
    assert second == first


@pytest.mark.parametrize("failure", FAILURES)
def test_failing_module_fails_each_time(start_agent: StartAgent, failure: str) -> None:
    agent = start_agent(FAILURES[failure][0])
    answers = [answer(agent) for _ in range(3)]
    assert answers == answers[:1] * 3


def test_module_that_failed_once_goes_on(start_agent: StartAgent) -> None:
    # Traps on its second call of one instance: a fresh one must answer the third.
    body = f"""(if (i32.load (i32.const 256)) (then unreachable))
        (i32.store (i32.const 256) (i32.const 1)) {returns(RESULT, 21)}"""
    agent = start_agent(wat.module(wat.hook(body), wat.data(RESULT, b'{"decision": "allow"}')))
    words = [response["audit"]["tags"] for response in (answer(agent), answer(agent), answer(agent))]
    assert words == [[], ["wasm-error"], []]


def test_hook_that_is_not_exported_allows_without_a_guest_call(
    start_agent: StartAgent, log: list[Any]
) -> None:
    agent = start_agent(wat.module(wat.hook("unreachable"), alloc="unreachable"))
    response = answer(agent, "response_headers", RESPONSE)
    assert (response["decision"], response["audit"]["tags"], log) == ("allow", [], [])


@pytest.mark.parametrize("returned", [(0, 0), (0, 5), (RESULT, 0)])
def test_module_with_nothing_to_say_allows(start_agent: StartAgent, returned: tuple[int, int]) -> None:
    response = answer(start_agent(wat.module(wat.hook(returns(*returned)))))
    assert (response["decision"], response["audit"]["tags"]) == ("allow", [])


@pytest.mark.parametrize("result", ['{"decision": "block"}', "no JSON", "{}"])
def test_result_of_request_complete_is_ignored(start_agent: StartAgent, result: str) -> None:
    deciding = wat.says('{"decision": "block"}')
    agent = start_agent(wat.module(deciding, wat.says(result, "on_request_complete", at=RESULT + 100)))
    response = answer(agent, "request_complete", COMPLETE)
    assert (response["decision"], response["audit"]["tags"]) == ("allow", [])


def test_refused_configuration_is_a_block_with_the_modules_reason(start_agent: StartAgent) -> None:
    # Refuses anything longer than {"config":{}}.
    refusing = wat.hook(
        f"(if (i32.gt_u (local.get $n) (i32.const 13)) (then (return {returns(8192, 20)}))) (i64.const 0)",
        "on_configure",
    )
    text = wat.module(wat.says('{"decision": "allow"}'), refusing, wat.data(8192, b'{"error": "no rule"}'))
    agent = start_agent(text)
    response = answer(agent, "configure", {"agent_id": "wasm", "config": {"a": 1}})
    assert response["decision"] == {
        "block": {"status": 500, "body": "Configuration rejected", "headers": None}
    }
    assert "no rule" in response["audit"]["reason_codes"][0]
    assert answer(agent)["decision"] == "allow"


@pytest.mark.parametrize("depth", [10, 200, 300, 1000])
def test_deep_configuration_gets_an_answer(start_agent: StartAgent, depth: int) -> None:
    agent = start_agent(
        wat.module(wat.says('{"decision": "allow"}'), wat.says("{}", "on_configure", at=8192))
    )
    config = b"[" * depth + b"]" * depth
    request = b'{"version":1,"event_type":"configure","payload":{"agent_id":"wasm","config":' + config + b"}}"
    response = agent_response.check(agent.v1(request))
    assert response["decision"] == "allow" or response["decision"]["block"]["status"] == 500
