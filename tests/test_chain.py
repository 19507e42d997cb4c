"""Several modules in one agent: who is asked, what the next one sees, and what the proxy is answered."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from sentinel_wasm import base64, merging
from sentinel_wasm.chain import Chain
from sentinel_wasm.client import request_headers
from sentinel_wasm.decision import ALLOW, Audit, Block, BodyMutation, Decision, HeaderOp
from sentinel_wasm.errors import ResultError
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.module import Module
from sentinel_wasm.protocol.events import Headers
from sentinel_wasm.settings import EventHook, Linked, Match, Settings

from .answering import AskedAgent
from .guest import wat
from .wat import allowing, module

pytestmark = pytest.mark.parallel

BASE = Settings(module=Path("m.wasm"), timeout_ms=10_000, pool_size=1)
REQUEST, REQUEST_BODY, RESPONSE, RESPONSE_BODY, COMPLETE = 0x10, 0x11, 0x12, 0x13, 0x14
FRAME, GUARDRAIL = 0x15, 0x16
ALLOWS = '{"decision":"allow"}'
BLOCKS = '{"decision":"block","status":451,"tags":["blocked"]}'
LOG = '(import "sentinel" "log" (func $log (param i32 i32 i32)))'
FOREVER = "(loop $l (br $l)) unreachable"


def printing(hook: str = "on_request_headers") -> str:
    """Logs what it sees."""
    body = "(call $log (i32.const 2) (local.get 0) (local.get 1)) (i64.const 0)"
    return module(f'(func (export "{hook}") (param i32 i32) (result i64) {body})', imports=LOG)


def doing(body: str, hook: str = "on_request_headers") -> str:
    return module(f'(func (export "{hook}") (param i32 i32) (result i64) {body})')


@dataclass
class Part:
    """A module of a chain."""

    text: str
    match: Match = Match()
    shadow: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def settings_of(parts: Sequence[Part], **options: Any) -> Settings:
    base = replace(BASE, **options)
    chain = [
        Linked(f"m{number}", replace(base, **part.options), part.match, part.shadow)
        for number, part in enumerate(parts, 1)
    ]
    return replace(base, chain=tuple(chain))


class Asked(AskedAgent):
    """A chain as a connection uses it."""

    def __init__(self, *parts: Part | str, **options: Any) -> None:
        whole = [part if isinstance(part, Part) else Part(part) for part in parts]
        modules = [Module(make_engine(), wat.binary(part.text), f"{n}.wasm") for n, part in enumerate(whole)]
        self.chain = Chain(settings_of(whole, **options), modules)
        super().__init__(self.chain)

    def ask(self, frame_type: int = REQUEST, payload: dict[str, Any] | None = None) -> dict[str, Any]:
        payload = request_headers("id-1") if payload is None else payload
        answer: dict[str, Any] = orjson.loads(self.v2(frame_type, orjson.dumps(payload)))
        return answer

    def decisions(self) -> list[int]:
        """How often each module has been asked."""
        return [sum(map(sum, link.counts.decisions_by_hook)) for link in self.chain.links]


@pytest.fixture
def start() -> Iterator[Any]:
    started: list[Asked] = []

    def make(*parts: Part | str, **options: Any) -> Asked:
        started.append(Asked(*parts, **options))
        return started[-1]

    yield make
    for asked in started:
        asked.close()


def chunk(data: bytes, **fields: Any) -> dict[str, Any]:
    return {
        "correlation_id": "id-1",
        "data": base64.encode(data),
        "is_last": True,
        "total_size": None,
        "chunk_index": 0,
        **fields,
    }


def response(identity: str = "id-1") -> dict[str, Any]:
    return {"correlation_id": identity, "status": 200, "headers": {"server": ["x"]}}


def frame(identity: str = "id-1") -> dict[str, Any]:
    return {
        "correlation_id": identity,
        "opcode": "text",
        "data": base64.encode(b"hi"),
        "client_to_server": True,
        "frame_index": 0,
        "fin": True,
        "route_id": None,
        "client_ip": "127.0.0.1",
    }


def content() -> dict[str, Any]:
    return {"correlation_id": "id-1", "inspection_type": "prompt_injection", "content": "hi"}


def seen(log: list[Any]) -> list[dict[str, Any]]:
    """What printing modules have logged."""
    return [orjson.loads(line["text"]) for line in log if line["event"] == "guest output"]


def routed(route: str | None, uri: str = "/", identity: str = "id-1") -> dict[str, Any]:
    payload = request_headers(identity, uri=uri)
    payload["metadata"]["route_id"] = route
    return payload


# --- who answers


def test_the_first_that_does_not_allow_answers_and_ends_it(start: Any) -> None:
    says = {"tags": ["one"], "rule_ids": ["r"], "add_request_headers": {"A": "1"}, "needs_more": True}
    first = orjson.dumps({"decision": "allow", **says}).decode()
    asked = start(module(on_request_headers=first), module(on_request_headers=BLOCKS), printing())
    with capture_logs() as log:
        answer = asked.ask()
    assert answer["decision"] == {"block": {"status": 451, "body": None, "headers": None}}
    assert answer["audit"]["tags"] == ["one", "blocked"]
    assert answer["audit"]["rule_ids"] == ["r"]
    assert answer["audit"]["custom"] == {"correlation_id": "id-1"}
    assert answer["request_headers"] == [{"set": {"name": "A", "value": "1"}}]
    assert answer["needs_more"] is True
    assert seen(log) == []
    assert asked.decisions() == [1, 1, 0]
    assert asked.chain.counts.decisions_by_hook[0] == [0, 1, 0, 0, 0, 0]


def test_an_answer_to_nobody_s_hook_is_allow(start: Any) -> None:
    asked = start(module(on_request_headers=BLOCKS), module(on_request_headers=BLOCKS))
    assert asked.ask(RESPONSE, response())["decision"] == "allow"
    assert asked.ask(FRAME, frame("w"))["websocket_decision"] == "allow"


def test_v1_is_answered_as_v2_is(start: Any) -> None:
    asked = start(module(on_request_headers=ALLOWS), module(on_request_headers=BLOCKS))
    event = {"version": 1, "event_type": "request_headers", "payload": request_headers("id-1")}
    answer = orjson.loads(asked.v1(orjson.dumps(event)))
    assert answer["decision"]["block"]["status"] == 451
    assert answer["audit"]["custom"] == {}


@pytest.mark.parametrize("fail_open", [True, False])
def test_a_module_that_fails_is_answered_by_its_own_rule(start: Any, fail_open: bool) -> None:
    asked = start(
        Part(doing("unreachable"), options={"fail_open": fail_open}), module(on_request_headers=BLOCKS)
    )
    answer = asked.ask()
    assert answer["decision"]["block"]["status"] == (451 if fail_open else 500)
    assert answer["audit"]["tags"] == (
        ["wasm-error", "fail-open", "blocked"] if fail_open else ["wasm-error"]
    )
    first, second = asked.chain.links
    assert (first.counts.errors["trap"], second.counts.errors["trap"]) == (1, 0)
    assert asked.decisions() == [1, 1 if fail_open else 0]


def test_an_event_that_is_not_understood_is_answered_once(start: Any) -> None:
    asked = start(module(on_request_headers=ALLOWS), module(on_request_headers=ALLOWS))
    answer = asked.ask(REQUEST, {**request_headers("id-1"), "headers": {"a": "no array"}})
    assert answer["audit"]["reason_codes"] == [
        "event not understood: headers: the value of 'a' is not an array of strings"
    ]
    assert asked.chain.counts.errors["event"] == 1


def test_a_module_has_its_own_time_within_the_event_s(start: Any) -> None:
    slow = Part(doing(FOREVER), options={"timeout_ms": 20, "fail_open": True})
    answer = start(slow, module(on_request_headers=BLOCKS)).ask()
    assert answer["decision"]["block"]["status"] == 451
    assert answer["audit"]["reason_codes"] == ["deadline of 20 ms exceeded in on_request_headers"]


def test_a_request_that_is_over_is_told_to_all_whoever_fails(start: Any) -> None:
    trap = '(func (export "on_request_complete") (param i32 i32) (result i64) unreachable)'
    asked = start(
        module(trap, on_request_headers=ALLOWS),
        module(on_request_headers=ALLOWS, on_request_complete=BLOCKS),
    )
    answer = asked.ask(COMPLETE, {"correlation_id": "id-1", "status": 200})
    assert answer["decision"]["block"]["status"] == 500
    assert asked.decisions() == [1, 1]


@pytest.mark.parametrize("dispatch", [("threads", "inline"), ("inline", "threads"), ("threads", "threads")])
def test_workers_and_the_event_loop_may_take_turns(start: Any, dispatch: tuple[str, str]) -> None:
    parts = [
        Part(module(on_request_headers=allowing(where)), options={"dispatch": where}) for where in dispatch
    ]
    asked = start(*parts, module(on_request_headers=BLOCKS))
    for number in range(3):
        assert asked.ask(REQUEST, request_headers(f"id-{number}"))["audit"]["tags"] == [*dispatch, "blocked"]
    assert asked.chain.counts.event_times[0] != [0] * len(asked.chain.counts.event_times[0])


@pytest.mark.parametrize("dispatch", ["inline", "threads"])
def test_a_defect_costs_the_event_alone(start: Any, dispatch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError

    allows = module(on_request_headers=ALLOWS)
    asked = start(Part(allows, options={"dispatch": dispatch}), allows)
    with monkeypatch.context() as patch:
        patch.setattr(merging, "joined", defect)
        answer = asked.ask()
    assert answer["audit"]["reason_codes"] == ["internal error: ZeroDivisionError"]
    assert answer["audit"]["custom"] == {"correlation_id": "id-1"}
    assert asked.ask()["decision"] == "allow"


# --- what the next one sees


def test_the_next_module_sees_the_headers_that_the_first_has_changed(start: Any) -> None:
    first = orjson.dumps(
        {
            "decision": "allow",
            "add_request_headers": {"x-set": ["1", "2"]},
            "append_request_headers": {"accept": "b"},
            "remove_request_headers": ["COOKIE"],
        }
    ).decode()
    asked = start(module(on_request_headers=first), printing())
    headers = {"cookie": ["c"], "Accept": ["a"], "X-Set": ["0"], "host": ["h"]}
    with capture_logs() as log:
        answer = asked.ask(REQUEST, request_headers("id-1", headers=headers))
    assert [entry["headers"] for entry in seen(log)] == [{"Accept": "a, b", "Host": "h", "X-Set": "1, 2"}]
    assert len(answer["request_headers"]) == 4


def test_the_next_module_sees_the_response_s_headers_so_too(start: Any) -> None:
    first = '{"decision":"allow","remove_response_headers":["Server"],"add_request_headers":{"A":"1"}}'
    asked = start(module(on_response_headers=first), printing("on_response_headers"))
    with capture_logs() as log:
        asked.ask(RESPONSE, response())
    assert [entry["headers"] for entry in seen(log)] == [{}]


@pytest.mark.parametrize(
    ("frame_type", "hook", "name", "answered"),
    [
        (REQUEST_BODY, "on_request_body", "request_body_mutation", "new"),
        (RESPONSE_BODY, "on_response_body", "response_body_mutation", "bmV3"),
    ],
)
def test_the_next_module_sees_the_body_that_the_first_has_put_there(
    start: Any, frame_type: int, hook: str, name: str, answered: str
) -> None:
    replaces = f'{{"decision":"allow","{name}":{{"action":"replace","data":"new"}}}}'
    passes = f'{{"decision":"allow","{name}":{{"action":"pass_through"}}}}'
    asked = start(module(**{hook: replaces}), module(**{hook: passes}), printing(hook))
    with capture_logs() as log:
        answer = asked.ask(frame_type, chunk(b"old", chunk_index=3))
    assert [entry["data"] for entry in seen(log)] == ["new"]
    assert answer[name] == {"data": answered, "chunk_index": 3}


def test_who_blocks_a_response_s_body_does_not_send_what_another_made_of_it(start: Any) -> None:
    replaces = '{"decision":"allow","response_body_mutation":{"action":"replace","data":"new"}}'
    asked = start(
        module(on_response_body=replaces), module(on_response_body='{"decision":"block","body":"no"}')
    )
    answer = asked.ask(RESPONSE_BODY, chunk(b"old"))
    assert base64.decode(answer["response_body_mutation"]["data"]) == b"no"


def test_a_response_s_body_that_all_leave_alone_is_echoed(start: Any) -> None:
    asked = start(module(on_response_body=ALLOWS), module(on_response_body=ALLOWS))
    assert base64.decode(asked.ask(RESPONSE_BODY, chunk(b"old"))["response_body_mutation"]["data"]) == b"old"


def test_a_mutation_of_another_chunk_is_not_what_the_next_one_sees(start: Any) -> None:
    replaces = (
        '{"decision":"allow","request_body_mutation":{"action":"replace","data":"new","chunk_index":7}}'
    )
    asked = start(module(on_request_body=replaces), printing("on_request_body"))
    with capture_logs() as log:
        asked.ask(REQUEST_BODY, chunk(b"old"))
    assert [entry["data"] for entry in seen(log)] == ["old"]


NAMES = ["a", "A", "b", "X-C"]
OPS = st.lists(
    st.one_of(
        st.builds(HeaderOp, st.sampled_from(["set", "add"]), st.sampled_from(NAMES), st.sampled_from("123")),
        st.builds(HeaderOp, st.just("remove"), st.sampled_from(NAMES)),
    ),
    max_size=4,
).map(tuple)
HEADERS = st.dictionaries(
    st.sampled_from(["a", "b", "x-c", "d"]), st.lists(st.sampled_from("xyz"), min_size=1)
)


def as_a_proxy(headers: Headers, ops: Sequence[HeaderOp]) -> list[tuple[str, str]]:
    """Lines of a header, as proxies keep them, with the changes made to them one by one."""
    lines = [(name, value) for name, values in headers.items() for value in values]
    for op in ops:
        if op.op != "add":
            lines = [line for line in lines if line[0].lower() != op.name.lower()]
        if op.value is not None:
            lines.append((op.name, op.value))
    return sorted_by_name(lines)


def sorted_by_name(lines: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The order of values matters within a name only."""
    return sorted(((name.lower(), value) for name, value in lines), key=lambda line: line[0])


@given(headers=HEADERS, modules=st.lists(OPS, max_size=4))
def test_the_changes_of_a_chain_are_those_of_one_module_after_the_other(
    headers: Headers, modules: list[tuple[HeaderOp, ...]]
) -> None:
    together, after = ALLOW, headers
    for ops in modules:
        together = merging.joined(together, Decision(request_headers=ops))
        after = merging.changed(after, ops)
    lines = [(name, value) for name, values in after.items() for value in values]
    assert as_a_proxy(headers, together.request_headers) == sorted_by_name(lines)
    assert {name for name, values in after.items() if not values} == set()


# --- decisions put together


def test_what_is_said_of_a_request_adds_up() -> None:
    first = Decision(
        audit=Audit(("a",), ("r",), 0.5, ("x",)), routing_metadata={"k": "1", "l": "1"}, needs_more=True
    )
    second = Decision(audit=Audit(("b",), (), None, ("y",)), routing_metadata={"k": "2"})
    assert merging.joined(first, second) == Decision(
        audit=Audit(("a", "b"), ("r",), 0.5, ("x", "y")),
        routing_metadata={"k": "2", "l": "1"},
        needs_more=True,
    )
    assert merging.joined(ALLOW, second) is second
    assert merging.joined(first, ALLOW) is first


def test_a_body_is_the_last_one_s_and_passing_it_through_is_none() -> None:
    new, newer, passed = BodyMutation(b"new"), BodyMutation(b"newer"), BodyMutation(None)
    for first, second, both in [
        (new, newer, newer),
        (new, passed, new),
        (passed, passed, passed),
        (new, None, new),
    ]:
        one, other = Decision(request_body=first), Decision(request_body=second, needs_more=True)
        assert merging.joined(one, other).request_body == both
    assert merging.joined(Decision(request_body=new), Decision(Block(403))).request_body is None


def test_modules_together_change_no_more_headers_than_one_may(start: Any) -> None:
    many = orjson.dumps(
        {"decision": "allow", "add_request_headers": {f"h{n}": "v" for n in range(600)}}
    ).decode()
    answer = start(module(on_request_headers=many), module(on_request_headers=many)).ask()
    assert answer["decision"]["block"]["status"] == 500
    assert "over 1024 changes of request_headers" in answer["audit"]["reason_codes"][0]
    ops = tuple(HeaderOp("add", "a", "x" * 60_000) for _ in range(10))
    with pytest.raises(ResultError, match="1024 KiB"):
        merging.joined(Decision(response_headers=ops), Decision(response_headers=ops))


def test_modules_together_say_no_more_than_one_may(start: Any) -> None:
    def long(letter: str) -> str:
        text = orjson.dumps({"decision": "allow", "tags": [letter * 600_000]})
        return wat.module(wat.says(text, at=65_536), pages=20)

    asked = start(long("a"), Part(long("b"), options={"fail_open": True}), module(on_request_headers=BLOCKS))
    answer = asked.ask()
    assert [tag[:10] for tag in answer["audit"]["tags"]] == ["a" * 10, "wasm-error", "fail-open", "blocked"]
    (reason,) = answer["audit"]["reason_codes"]
    assert reason == "the results of the modules for one event are over 1048576 bytes"


# --- which events a module is asked about


@pytest.mark.parametrize(
    ("match", "route", "uri", "is_asked"),
    [
        (Match(routes=("api",)), "api", "/", True),
        (Match(routes=("api", "web")), "web", "/", True),
        (Match(routes=("api",)), "ap", "/", False),
        (Match(routes=("api",)), None, "/", False),
        (Match(path_prefixes=("/admin",)), None, "/admin?x=1", True),
        (Match(path_prefixes=("/admin",)), None, "/", False),
        (Match(path_prefixes=("/admin",)), None, "/x?/admin", False),
        (Match(path_prefixes=("/a/", "/b/")), None, "/b/c", True),
        (Match(path_prefixes=("/admin",)), None, "http://example.com/admin", True),
        (Match(path_prefixes=("/admin",)), None, "/%61dmin", True),
        (Match(path_prefixes=("/admin",)), None, "//admin", True),
        (Match(path_prefixes=("/admin",)), None, "/x/../admin", True),
        (Match(path_prefixes=("/admin/",)), None, "/x/%2e%2e/admin/", True),
        (Match(path_prefixes=("/x/",)), None, "/x/../admin", True),
        (Match(routes=("api",), path_prefixes=("/admin",)), "api", "/", False),
        (Match(routes=("api",), path_prefixes=("/admin",)), "api", "/admin", True),
        (Match(hooks=("on_response_headers",)), "api", "/", False),
        (Match(hooks=("on_request_headers",)), "api", "/", True),
    ],
)
def test_a_module_is_asked_about_what_it_matches(
    start: Any, match: Match, route: str | None, uri: str, is_asked: bool
) -> None:
    asked = start(Part(module(on_request_headers=BLOCKS), match), module(on_request_headers=ALLOWS))
    assert (asked.ask(REQUEST, routed(route, uri))["decision"] != "allow") is is_asked


def test_what_a_request_matches_holds_for_its_response(start: Any) -> None:
    hooks = {"on_request_headers": ALLOWS, "on_response_headers": BLOCKS}
    asked = start(Part(module(**hooks), Match(routes=("api",))), module(on_request_headers=ALLOWS))

    def blocks(identity: str) -> bool:
        return bool(asked.ask(RESPONSE, response(identity))["decision"] != "allow")

    asked.ask(REQUEST, routed("web", identity="w"))
    asked.ask(REQUEST, routed("api", identity="a"))
    assert (blocks("a"), blocks("w")) == (True, False)
    # The request is over, and nothing is kept of it.
    assert not asked.chain.left_out
    # One whose headers nobody has seen is for every module.
    assert blocks("w")


def test_what_is_kept_of_requests_is_bounded(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentinel_wasm.matching._KEPT", 3)
    hooks = {"on_request_headers": ALLOWS, "on_response_headers": BLOCKS}
    asked = start(Part(module(**hooks), Match(routes=("api",))), module(**hooks))
    for number in range(5):
        asked.ask(REQUEST, routed("web", identity=f"id-{number}"))
    assert list(asked.chain.left_out) == ["id-2", "id-3", "id-4"]
    monkeypatch.setattr("sentinel_wasm.matching._KEPT_NS", 0)
    asked.ask(REQUEST, routed("web", identity="last"))
    asked.ask(REQUEST, routed("web", identity="very last"))
    assert list(asked.chain.left_out)[-1] == "very last"
    assert "last" in asked.chain.left_out  # behind those that are kept for longer


# --- shadows


def shadow(text: str, **options: Any) -> Part:
    return Part(text, shadow=True, options=options)


def results_of(asked: Asked) -> dict[str, int]:
    (only,) = asked.chain.shadows
    return {result: number for result, number in only.results.items() if number}


def until_compared(asked: Asked, times: int) -> dict[str, int]:
    asked.until(lambda: sum(results_of(asked).values()) == times)
    return results_of(asked)


def test_a_shadow_is_compared_and_answers_nothing(start: Any) -> None:
    asked = start(
        module(on_request_headers=BLOCKS, on_response_headers=ALLOWS),
        shadow(module(on_request_headers=ALLOWS, on_response_headers='{"decision":"allow","tags":["x"]}')),
    )
    with capture_logs() as log:
        assert asked.ask()["decision"]["block"]["status"] == 451
        assert until_compared(asked, 1) == {"different": 1}
        assert asked.ask(RESPONSE, response())["audit"]["tags"] == []
        assert until_compared(asked, 2) == {"different": 1, "same": 1}
    (line,) = [line for line in log if line["event"] == "shadow module decides otherwise"]
    assert (line["live"], line["shadow"], line["differs"]) == ("block 451", "allow", ["decision"])
    assert (line["name"], line["correlation_id"], line["hook"]) == ("m2", "id-1", "on_request_headers")


def test_a_shadow_sees_the_event_as_the_proxy_sent_it(start: Any) -> None:
    changes = '{"decision":"allow","add_request_headers":{"a":"1"}}'
    asked = start(module(on_request_headers=changes), shadow(printing()))
    with capture_logs() as log:
        asked.ask(REQUEST, request_headers("id-1", headers={"host": ["h"]}))
        assert until_compared(asked, 1) == {"different": 1}
    assert [entry["headers"] for entry in seen(log)] == [{"Host": "h"}]


def test_the_failures_of_a_shadow_never_matter(start: Any) -> None:
    asked = start(module(on_request_headers=ALLOWS), shadow(doing("unreachable")))
    for number in range(20):
        assert asked.ask(REQUEST, request_headers(f"id-{number}"))["audit"]["tags"] == []
        asked.until(lambda: asked.chain.pending == 0)
    assert set(results_of(asked)) == {"failed"}
    assert asked.chain.health == "healthy"
    assert asked.chain.trouble is None
    assert all(not link.counts.errors["trap"] for link in asked.chain.links)


def test_a_shadow_that_cannot_start_is_left_out(start: Any) -> None:
    broken = module("(func $trap unreachable) (start $trap)", on_request_headers=ALLOWS)
    with capture_logs() as log:
        asked = start(module(on_request_headers=BLOCKS), shadow(broken))
    assert asked.ask()["decision"]["block"]["status"] == 451
    assert [link.name for link in asked.chain.links] == ["m1"]
    (line,) = [line for line in log if line["event"] == "the shadow module is left out"]
    assert "cannot be started" in line["reason"]


def test_a_shadow_is_not_asked_once_its_agent_has_gone(start: Any) -> None:
    asked = start(module(on_request_headers=ALLOWS), shadow(module(on_request_headers=ALLOWS)))
    asked.chain.answer_v2(REQUEST, orjson.dumps(request_headers("id-1")), time.monotonic_ns(), print)
    asked.chain.detach()
    asked.wait(0)
    asked.wait(0)
    assert asked.chain.pending == 0
    assert results_of(asked) == {}


def test_a_shadow_has_its_own_match(start: Any) -> None:
    asked = start(
        module(on_request_headers=ALLOWS),
        Part(module(on_request_headers=ALLOWS), Match(routes=("api",)), shadow=True),
    )
    for route in ("web", "api", "web"):
        asked.ask(REQUEST, routed(route, identity=route))
    assert until_compared(asked, 1) == {"same": 1}


def test_the_hooks_that_a_match_may_name_are_those_of_events() -> None:
    assert get_args(EventHook) == tuple(hook for hook in abi.HOOKS if hook != "on_configure")


# --- frames and guardrails


def test_the_first_that_does_not_allow_a_frame_answers(start: Any) -> None:
    drops, closes = '{"decision":"drop","tags":["d"]}', '{"decision":"close","code":1008}'
    asked = start(
        module(on_websocket_frame=allowing("one")),
        module(on_websocket_frame=drops),
        module(on_websocket_frame=closes),
    )
    answer = asked.ask(FRAME, frame())
    assert (answer["decision"], answer["websocket_decision"]) == ("allow", "drop")
    assert answer["audit"]["tags"] == ["one", "d"]
    assert asked.decisions() == [1, 1, 0]


def test_a_module_that_fails_on_a_frame_closes_by_its_own_fail_mode(start: Any) -> None:
    fails, closes = '{"decision":"perhaps"}', '{"decision":"close","code":1008}'
    opens = Part(module(on_websocket_frame=fails), options={"fail_open": True})
    asked = start(opens, module(on_websocket_frame=closes))
    assert asked.ask(FRAME, frame())["websocket_decision"] == {"close": {"code": 1008, "reason": ""}}
    asked = start(module(on_websocket_frame=fails), module(on_websocket_frame=closes))
    answer = asked.ask(FRAME, frame())
    assert answer["websocket_decision"] == {"close": {"code": 1011, "reason": "Wasm Error"}}


def found(category: str, **fields: Any) -> str:
    detections = [{"category": category, "description": category}]
    return orjson.dumps({"detected": False, "detections": detections, **fields}).decode()


def test_what_guardrails_find_adds_up(start: Any) -> None:
    asked = start(
        module(on_guardrail=found("one", confidence=0.9, redacted_content="1")),
        module(on_guardrail=found("two", confidence=0.5)),
        module(on_request_headers=ALLOWS),
    )
    findings = orjson.loads(asked.ask(GUARDRAIL, content())["routing_metadata"]["guardrail_response"])
    assert [each["category"] for each in findings["detections"]] == ["one", "two"]
    assert (findings["detected"], findings["confidence"]) == (False, 0.9)
    assert findings["redacted_content"] == "1"
    assert asked.decisions() == [1, 1, 0]


def test_a_guardrail_that_detects_ends_the_chain(start: Any) -> None:
    asked = start(
        module(on_guardrail=found("one", confidence=0.9)),
        module(on_guardrail=found("two", detected=True, confidence=0.6)),
        module(on_guardrail=found("three")),
    )
    answer = asked.ask(GUARDRAIL, content())
    findings = orjson.loads(answer["routing_metadata"]["guardrail_response"])
    assert "block" in answer["decision"]
    assert [each["category"] for each in findings["detections"]] == ["one", "two"]
    assert (findings["detected"], findings["confidence"]) == (True, 0.6)
    assert asked.decisions() == [1, 1, 0]
