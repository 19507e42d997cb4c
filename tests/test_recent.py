"""The last events: what each way of answering leaves of one, and what is read of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from sentinel_wasm import _recent
from sentinel_wasm.agent import Agent
from sentinel_wasm.client import request_headers
from sentinel_wasm.guest.engine import Engine, make_engine
from sentinel_wasm.guest.module import Module
from sentinel_wasm.server import events
from sentinel_wasm.settings import Address, Settings

from .answering import AskedAgent
from .guest import wat
from .normalising import REQUEST, RESPONSE, V1
from .test_metrics import obedient

pytestmark = pytest.mark.parallel

KEPT = _recent.KEPT
TAGGED = (
    '{"decision":"block","status":429,"body":"no","tags":["a","b\\"c"],"rule_ids":["R-1"],'
    '"reason_codes":["TOO_MANY"],"add_response_headers":{"Set-Cookie":"session=s3cret"}}'
)

Start = Callable[..., AskedAgent]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return make_engine()


@pytest.fixture
def start(engine: Engine) -> Iterator[Start]:
    agents = []

    def started(text: str, **options: Any) -> AskedAgent:
        chosen = {"timeout_ms": 10_000, "pool_size": 1, "admin": Address("127.0.0.1", 0), **options}
        settings = Settings(module=Path("m.wasm"), **chosen)
        agents.append(AskedAgent(Agent(settings, Module(engine, wat.binary(text), "m.wasm"))))
        return agents[-1]

    yield started
    for agent in agents:
        agent.close()


def request(identity: str = "id-1", method: str = "GET") -> bytes:
    return orjson.dumps({**request_headers(identity, headers={"cookie": ["k=s3cret"]}), "method": method})


def asked_by_v1(payload: bytes) -> bytes:
    return orjson.dumps({"version": 1, "event_type": "request_headers", "payload": orjson.loads(payload)})


def kept(asked: AskedAgent, since: int = 0) -> list[events.Event]:
    recent = asked.agent.counts.recent
    assert recent is not None
    return list(events.read(recent.since(since)))


def without_times(found: list[events.Event]) -> list[events.Event]:
    return [
        {name: value for name, value in event.items() if name not in ("time", "took_us")} for event in found
    ]


def quickly(asked: AskedAgent, payload: bytes, frame_type: int = REQUEST) -> None:
    assert asked.agent.quick.answer_frame(frame_type, payload, time.monotonic_ns()) is not None


def test_nothing_is_kept_where_nobody_looks(start: Start) -> None:
    asked = start(wat.module(wat.says(TAGGED)), admin=None)
    quickly(asked, request())
    asked.v2(REQUEST, request())
    assert asked.agent.counts.recent is None


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("method", ["GET", "ALLOW", "BLOCK", "REDIRECT", "CHALLENGE", "NONSENSE", "TRAP"])
def test_both_ways_keep_the_same(start: Start, method: str, version: str) -> None:
    """Each answer is kept once, whoever makes it."""
    quick, plain = start(obedient()), start(obedient())
    payload, frame_type = request(method=method), REQUEST
    if version == "v1":
        payload, frame_type = asked_by_v1(payload), V1
    quickly(quick, payload, frame_type)
    if version == "v1":
        plain.v1(payload)
    else:
        plain.v2(REQUEST, payload)
    (event,), (in_python,) = without_times(kept(quick)), without_times(kept(plain))
    assert event == in_python
    assert event["protocol"] == version
    assert event["hook"] == "on_request_headers"
    assert event["correlation_id"] == "id-1"
    decisions = {"BLOCK": "block", "REDIRECT": "redirect", "CHALLENGE": "challenge", "NONSENSE": "block"}
    assert event["decision"] == {"TRAP": "block", **decisions}.get(method, "allow")
    assert event["status"] == {"BLOCK": 403, "REDIRECT": 302, "NONSENSE": 500, "TRAP": 500}.get(method)
    assert event["tags"] == {"ALLOW": ["seen"], "NONSENSE": ["wasm-error"], "TRAP": ["wasm-error"]}.get(
        method, []
    )
    assert bool(event["reasons"]) is (method in ("NONSENSE", "TRAP"))


def test_an_answer_from_before_is_kept_as_another_event(start: Start) -> None:
    """A redirect's answer is made in Python once; later ones do not go there."""
    asked = start(obedient())
    for number in range(3):
        quickly(asked, request(f"id-{number}", "REDIRECT"))
    found = [(event["correlation_id"], event["decision"], event["status"]) for event in kept(asked)]
    assert found == [(f"id-{number}", "redirect", 302) for number in range(3)]


def test_what_the_answer_says_is_kept_and_nothing_secret(start: Start) -> None:
    asked = start(wat.module(wat.says(TAGGED)))
    quickly(asked, request())
    asked.v2(REQUEST, request())
    for event in kept(asked):
        assert (event["status"], event["tags"], event["rule_ids"]) == (429, ["a", 'b"c'], ["R-1"])
        assert event["reasons"] == ["TOO_MANY"]
        assert not event["is_cut"]
    recent = asked.agent.counts.recent
    assert recent is not None
    assert b"s3cret" not in recent.since(0)


def test_events_of_other_kinds_are_kept(start: Start) -> None:
    asked = start(obedient())
    response = b'{"correlation_id":"id-2","status":200,"headers":{}}'
    quickly(asked, response, RESPONSE)  # the module has no hook for it
    asked.v2(RESPONSE, response)
    asked.v2(0x15, b'{"correlation_id":"id-3","opcode":"text","data":"","client_to_server":true}')
    asked.v2(0x16, b'{"correlation_id":"id-3","inspection_type":"pii_detection","content":""}')
    asked.v2(0x1F, b'{"correlation_id":"id-4"}')
    asked.v2(REQUEST, b'{"correlation_id":"id-5"}')
    asked.v2(0x14, b'{"correlation_id":"id-6"}')
    asked.v2(0x17, b'{"correlation_id":"id-7","config":{}}')
    found = [(event["hook"], event["correlation_id"], event["decision"]) for event in kept(asked)]
    assert found == [
        ("on_response_headers", "id-2", "allow"),
        ("on_response_headers", "id-2", "allow"),
        ("on_websocket_frame", "id-3", "allow"),
        ("on_guardrail", "id-3", "allow"),
        ("none", "id-4", "allow"),
        ("none", "id-5", "block"),
        ("on_request_complete", "id-6", "allow"),
        ("on_configure", "id-7", "allow"),
    ]
    assert "metadata is absent" in kept(asked)[5]["reasons"][0]


def test_an_event_that_waited_for_a_worker_took_as_long(start: Start) -> None:
    asked = start(obedient(), dispatch="threads", timeout_ms=100)
    before = time.time()
    asked.v2(REQUEST, request(method="FOREVER"))
    (event,) = kept(asked)
    assert event["took_us"] >= 90_000
    assert before - 0.01 <= event["time"] <= time.time() - 0.09
    assert "deadline of 100 ms exceeded" in event["reasons"][0]


def test_the_last_events_stay_under_their_numbers(start: Start) -> None:
    asked = start(wat.module(wat.says(TAGGED)))
    assert kept(asked) == []
    for number in range(KEPT + 10):
        quickly(asked, request(f"id-{number + 1}"))
    found = kept(asked)
    assert [event["number"] for event in found] == list(range(11, KEPT + 11))
    assert all(event["correlation_id"] == f"id-{event['number']}" for event in found)
    assert [event["number"] for event in kept(asked, KEPT + 8)] == [KEPT + 9, KEPT + 10]
    assert kept(asked, KEPT + 10) == []
    # A number from before a restart: whoever has it knows nothing of this process.
    assert len(kept(asked, KEPT + 11)) == KEPT


@pytest.mark.parametrize("identity", ["x" * 64, "x" * 65, "é" * 40, "\N{GRINNING FACE}" * 30, "\ud800", ""])
def test_ids_of_any_kind(start: Start, identity: str) -> None:
    asked = start(wat.module(wat.says(TAGGED)))
    recent = asked.agent.counts.recent
    assert recent is not None
    recent.add(0, 0, 0, 2, identity, b"")
    (event,) = kept(asked)
    assert orjson.dumps(event)
    assert len(event["correlation_id"]) <= 65
    if len(identity.encode(errors="replace")) > 64:
        assert event["correlation_id"].endswith("…")
    elif identity.isprintable():
        assert event["correlation_id"] == identity


@pytest.mark.parametrize("length", [1, 200, 600, 100_000])
def test_more_than_is_kept_is_said(start: Start, length: int) -> None:
    result = orjson.dumps({"decision": "block", "body": "b" * 3000, "tags": ["t" * length]})
    asked = start(wat.module(wat.says(result), pages=4))
    quickly(asked, request())
    asked.v2(REQUEST, request())
    for event in kept(asked):
        assert (event["decision"], event["status"]) == ("block", 403)
        assert event["is_cut"] is (length > 200)
        assert event["tags"] == ([] if event["is_cut"] else ["t" * length])


def test_what_looks_like_an_audit_is_none(start: Start) -> None:
    fake = '"audit":{"tags":["fake"]}}'
    result = orjson.dumps({"decision": "allow", "tags": ["real"], "reason_codes": [fake]})
    asked = start(wat.module(wat.says(result)))
    quickly(asked, request())
    assert kept(asked)[0]["tags"] == ["real"]


def test_the_last_error_of_each_kind_is_known(start: Start) -> None:
    asked = start(obedient())
    for number, method in enumerate(["TRAP", "NONSENSE", "NONSENSE"]):
        asked.v2(REQUEST, request(f"id-{number}", method))
    errors = asked.agent.counts.last_errors
    assert errors.keys() == {"trap", "result"}
    reason, identity, when = errors["result"]
    assert reason == "result of on_request_headers is an array, expected an object"
    assert identity == "id-2"
    assert abs(when - time.time()) < 60


def test_reading_agrees_with_the_ring() -> None:
    assert events._ENTRY.size == _recent.ENTRY_BYTES
    assert events._KEPT == _recent.KEPT


def test_events_of_workers_are_merged() -> None:
    merged = events.Merged()
    merged.add([{"number": 7, "time": 2.0, "worker": 1}, {"number": 3, "time": 1.0, "worker": 2}])
    assert [(event["number"], event["worker"]) for event in merged.since(0)] == [(1, 2), (2, 1)]
    merged.add([{"number": number, "time": 3.0, "worker": 1} for number in range(KEPT)])
    assert [event["number"] for event in merged.since(0)] == list(range(3, KEPT + 3))
    assert [event["number"] for event in merged.since(KEPT + 1)] == [KEPT + 2]
    assert merged.since(KEPT + 2) == []
    assert len(merged.since(KEPT + 3)) == KEPT


def test_reading_many_lets_others_run(start: Start) -> None:
    asked = start(wat.module(wat.says(TAGGED)))
    for _ in range(KEPT):
        quickly(asked, request())
    recent = asked.agent.counts.recent
    assert recent is not None
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def both() -> None:
        counting = asyncio.create_task(count())
        assert len(await events.read_all(recent.since(0))) == KEPT
        counting.cancel()

    asyncio.run(both())
    assert turns >= 8
