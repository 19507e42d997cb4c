"""The quick path beside the Python one: the same frames, or it leaves the event alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as examples

from sentinel_wasm._quick import spread
from sentinel_wasm.client import request_headers

from . import header_events
from .guest import wat
from .normalising import RESPONSE, V1, Form, captured
from .quickly import Start, agents, in_python, quickly

pytestmark = pytest.mark.parallel

REQUEST = 0x10
FIXED = '{"decision":"block","status":429,"body":"slow \\"down\\"","tags":["a"]}'
REDIRECT = '{"decision":"redirect","body":"https://example.com/","tags":["b"]}'
MODULES = {
    "both hooks": wat.module(wat.says(FIXED), wat.says(REDIRECT, "on_response_headers", at=20_000)),
    "one hook": wat.module(wat.says(FIXED)),
    "nothing to say": wat.module(wat.hook("(i64.const 0)")),
    "no decision": wat.module(wat.says("{}")),
}
# Says how often it was called, so that one instance is told from another.
COUNTING = wat.module(
    wat.data(wat.RESULT, b'{"decision":"allow","tags":["00"]}'),
    wat.hook(
        f"(i32.store8 (i32.const {wat.RESULT + 30}) "
        f"(i32.add (i32.load8_u (i32.const {wat.RESULT + 30})) (i32.const 1)))" + wat.returns(wat.RESULT, 34)
    ),
)


# Over 2 ms on any machine.
SPINS = (
    "(loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))"
    " (br_if $l (i32.lt_u (local.get $i) (i32.const 80_000_000))))"
)


def traps_on(letter: str) -> str:
    """A hook that traps where the method begins with this letter."""
    return (
        f"(if (i32.eq (i32.load8_u offset=11 (local.get $p)) (i32.const {ord(letter)})) (then unreachable))"
    )


@pytest.fixture
def start() -> Iterator[Start]:
    with agents() as start:
        yield start


def request(identity: str = "id-1", method: str = "GET") -> bytes:
    return orjson.dumps({**request_headers(identity), "method": method})


def tags(frame: bytes | None) -> list[str]:
    assert frame is not None
    found: list[str] = orjson.loads(frame[5:])["audit"]["tags"]
    return found


@pytest.mark.parametrize("isolation", ["pooled", "request"])
@pytest.mark.parametrize("kind", MODULES)
def test_captured_events_have_the_same_frames(start: Start, kind: str, isolation: str) -> None:
    quick, plain = (start(MODULES[kind], isolation=isolation) for _ in range(2))
    for frame_type, payload in captured():
        frame = quickly(quick, frame_type, payload)
        assert frame is not None
        assert frame == in_python(plain, frame_type, payload)
        assert frame == quickly(quick, frame_type, payload)


@pytest.mark.parametrize("kind", MODULES)
def test_generated_events_have_the_same_frames(
    start: Start, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    quick, plain = start(MODULES[kind]), start(MODULES[kind])
    counts: Counter[str] = Counter()

    @given(header_events.written())
    @examples(max_examples=1_000)
    def agrees(event: tuple[int, bytes, Form]) -> None:
        frame_type, payload, _ = event
        frame = quickly(quick, frame_type, payload)
        counts["left to Python" if frame is None else "taken"] += 1
        assert frame is None or frame == in_python(plain, frame_type, payload)

    agrees()
    with capsys.disabled():
        print(f"\n{kind}: {dict(counts)}")
    assert min(counts["taken"], counts["left to Python"]) > 100


@pytest.mark.parametrize("version", [0, 3, 70_000])
def test_other_versions_of_v1_are_left_to_python(start: Start, version: int) -> None:
    payload = {"version": version, "event_type": "request_headers", "payload": request_headers("id-1")}
    assert quickly(start(MODULES["one hook"]), V1, orjson.dumps(payload)) is None


def test_long_events_are_left_to_python(start: Start) -> None:
    event = request_headers("id-1")
    asked = start(MODULES["one hook"])
    event["uri"] = "/" + "x" * (65_537 - len(orjson.dumps(event)))
    assert quickly(asked, REQUEST, orjson.dumps(event)) is None
    event["uri"] = event["uri"][:-1]
    assert quickly(asked, REQUEST, orjson.dumps(event)) == in_python(asked, REQUEST, orjson.dumps(event))


def test_both_ways_lead_to_the_same_instance(start: Start) -> None:
    asked = start(COUNTING, pool_size=4)
    seen = set()
    for number in range(40):
        identity = f"id-{number}"
        place = spread(identity, 4)
        seen.add(place)
        before = tags(quickly(asked, REQUEST, request(identity)))[0][1]
        frame = in_python(asked, REQUEST, request(identity))
        assert ord(tags(frame)[0][1]) == ord(before) + 1
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "options",
    [{"verbose": True}, {"dispatch": "threads"}, {"dispatch": "threads", "isolation": "request"}],
    ids=str,
)
def test_what_needs_python_for_every_event_has_no_quick_path(start: Start, options: dict[str, Any]) -> None:
    asked = start(MODULES["one hook"], **options)
    assert quickly(asked, REQUEST, request()) is None
    in_python(asked, REQUEST, request())
    assert quickly(asked, REQUEST, request()) is None


def test_each_request_has_its_own_instance_where_that_is_asked_for(start: Start) -> None:
    both = wat.hook(wat.returns(wat.RESULT, 34), "on_response_headers")
    asked = start(COUNTING.rstrip().removesuffix(")") + both + ")", isolation="request", request_instances=2)
    response = b'{"correlation_id":"id-1","status":200,"headers":{}}'
    for _ in range(3):
        assert tags(quickly(asked, REQUEST, request())) == ["01"]
        assert tags(quickly(asked, REQUEST, request())) == ["02"]
        # The response's answer is the request's last.
        assert tags(quickly(asked, RESPONSE, response)) == ["02"]
    for number in range(5):
        assert tags(quickly(asked, REQUEST, request(f"never-ends-{number}"))) == ["01"]


def test_a_block_ends_a_request_that_has_its_own_instance(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = start(MODULES["both hooks"], isolation="request", request_instances=1)
    ended: list[str] = []
    monkeypatch.setattr(asked.agent.links[0].pool, "forget", ended.append)
    quickly(asked, REQUEST, request("id-1"))
    assert ended == ["id-1"]


def test_no_room_for_another_request_is_overload(start: Start) -> None:
    asked = start(MODULES["one hook"], isolation="request", request_instances=1)
    busy = asked.agent.links[0].pool._places.inline("busy", time.monotonic_ns()).guest
    busy.pending = 1  # as a worker's job counts
    assert tags(quickly(asked, REQUEST, request()))[0] == "wasm-overload"
    busy.pending = 0
    assert tags(quickly(asked, REQUEST, request())) == ["a"]


@pytest.mark.parametrize("fail_open", [False, True])
def test_a_trap_is_answered_alike_and_python_has_the_module_until_it_works_again(
    start: Start, fail_open: bool
) -> None:
    module = wat.module(
        wat.data(wat.RESULT, FIXED.encode()) + wat.hook(traps_on("T") + wat.returns(wat.RESULT, len(FIXED)))
    )
    quick, plain = (start(module, fail_open=fail_open, pool_size=2) for _ in range(2))
    frame = quickly(quick, REQUEST, request(method="TRACE"))
    assert frame == in_python(plain, REQUEST, request(method="TRACE"))
    assert tags(frame)[0] == "wasm-error"
    assert quickly(quick, REQUEST, request()) is None
    quick.until(lambda: tags(in_python(quick, REQUEST, request())) == ["a"])
    # Its events may be pinned to the instance that had them meanwhile: other requests are quick again.
    quick.until(lambda: quick.agent.pending == 0 and quickly(quick, REQUEST, request("another")) is not None)
    assert tags(quickly(quick, REQUEST, request("another"))) == ["a"]


def test_a_deadline_that_has_passed_is_no_failure_of_the_module(start: Start) -> None:
    asked = start(MODULES["one hook"])
    frame = asked.agent.quick.answer_frame(REQUEST, request(), time.monotonic_ns() - 11_000_000_000)
    assert frame is not None
    assert "before the module was asked" in orjson.loads(frame[5:])["audit"]["reason_codes"][0]
    assert tags(quickly(asked, REQUEST, request())) == ["a"]


def test_a_module_that_becomes_slow_leaves_the_quick_path(start: Start) -> None:
    module = wat.module(wat.hook(SPINS + "(i64.const 0)"))
    asked = start(module)
    assert quickly(asked, REQUEST, request()) is not None
    assert quickly(asked, REQUEST, request()) is None


def test_an_instance_lost_after_its_answer_costs_nothing(start: Start) -> None:
    module = wat.module(
        wat.says(FIXED), dealloc="(if (i32.eq (local.get $p) (i32.const 16384)) (then unreachable))"
    )
    asked = start(module, pool_size=1)
    assert tags(quickly(asked, REQUEST, request())) == ["a"]
    assert quickly(asked, REQUEST, request()) is None  # it is being replaced
    assert tags(in_python(asked, REQUEST, request())) == ["a"]


def test_what_a_guest_logs_comes_with_the_event(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    text = wat.module(
        wat.data(wat.RESULT, b"hello"),
        wat.hook(f"(call $log (i32.const 3) (i32.const {wat.RESULT}) (i32.const 5)) (i64.const 0)"),
        imports='(import "sentinel" "log" (func $log (param i32 i32 i32)))',
    )
    asked = start(text)
    assert quickly(asked, REQUEST, request("logged-1")) is not None
    said = capsys.readouterr()
    assert "hello" in said.out + said.err
    assert "logged-1" in said.out + said.err


def test_a_defect_costs_the_event_alone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = start(MODULES["no decision"])

    def defect(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(asked.agent, "_result_answer", defect)
    frame = quickly(asked, REQUEST, request())
    assert frame is not None
    assert orjson.loads(frame[5:])["audit"]["reason_codes"] == ["internal error: ZeroDivisionError"]


@pytest.mark.parametrize("version", [V1, REQUEST])
def test_the_requests_whose_decisions_are_logged_are_left_to_python(start: Start, version: int) -> None:
    asked = start(MODULES["one hook"], log_decisions=0.25)
    ids = [f"id-{number}" for number in range(400)]
    logged = {identity for identity in ids if asked.agent.quick.is_logged(identity)}
    assert 70 < len(logged) < 130
    for identity in ids:
        payload = request(identity)
        if version == V1:
            event = {"version": 1, "event_type": "request_headers", "payload": orjson.loads(payload)}
            payload = orjson.dumps(event)
        assert (quickly(asked, version, payload) is None) is (identity in logged)
        assert in_python(asked, version, payload) is not None


@pytest.mark.parametrize(("share", "logged"), [(0.0, 0), (1.0, 400), (1e-9, 0)])
def test_none_of_the_requests_is_logged_or_all_are(start: Start, share: float, logged: int) -> None:
    quick = start(MODULES["one hook"], log_decisions=share).agent.quick
    assert sum(quick.is_logged(f"id-{number}é") for number in range(400)) == logged


def test_debug_logging_takes_every_event_until_it_ends(start: Start) -> None:
    asked = start(MODULES["one hook"])
    asked.agent.set_debug(True)
    assert quickly(asked, REQUEST, request()) is None
    asked.agent.set_debug(False)
    assert quickly(asked, REQUEST, request()) is not None


def test_responses_without_a_hook_are_allowed(start: Start) -> None:
    asked = start(MODULES["one hook"])
    payload = b'{"correlation_id":"id-9","status":200,"headers":{}}'
    frame = quickly(asked, RESPONSE, payload)
    assert frame == in_python(asked, RESPONSE, payload)
    assert orjson.loads((frame or b"")[5:])["decision"] == "allow"


def test_spread_is_even() -> None:
    for ids in ([f"c-0-{n}" for n in range(4000)], [f"{n:011x}" for n in range(4000)]):
        counts = Counter(spread(identity, 4) for identity in ids)
        assert min(counts.values()) > 900
