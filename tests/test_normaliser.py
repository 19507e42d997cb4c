"""The one-pass normaliser against the Python path: the same bytes, or it leaves the event alone.

Real events that were changed are compared by `fuzz.mutating`, which says how to repeat a run.
"""

from __future__ import annotations

from collections import Counter

import orjson
import pytest
from hypothesis import given, settings

from sentinel_wasm._fastpath import Normaliser

from . import header_events
from .fuzz import mutating
from .normalising import FORMS, RESPONSE, Form, Outcome, captured, compare, in_both_protocols

pytestmark = pytest.mark.parallel

# A tenth: hypothesis takes ten times as long for an event.
EXAMPLES = min(20_000, mutating.COUNT // 10)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_every_captured_header_event_takes_the_one_pass(form: Form) -> None:
    assert len(captured()) == 46
    for frame_type, frame in in_both_protocols():
        assert compare(frame_type, frame, form) is Outcome.ALIKE, frame


def test_generated_events_agree(capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[Outcome] = Counter()

    @given(header_events.written())
    @settings(max_examples=EXAMPLES)
    def agrees(event: tuple[int, bytes, Form]) -> None:
        counts[compare(*event)] += 1

    agrees()
    with capsys.disabled():
        print(f"\n{counts.total():,} generated events:", end=" ")
        print(", ".join(f"{counts[outcome]:,} {outcome.value}" for outcome in Outcome))
    assert counts.total() >= EXAMPLES
    assert_nothing_ran_dry([counts[outcome] for outcome in Outcome])


def test_changed_captured_events_agree(capsys: pytest.CaptureFixture[str]) -> None:
    counts = mutating.run(mutating.COUNT, mutating.SEED)
    with capsys.disabled():
        print(f"\nmutated events, NORMALISER_SEED={mutating.SEED}\n{mutating.table(counts)}")
    assert counts.total() == mutating.COUNT
    kinds = {kind for kind, _ in counts}
    assert len(kinds) == 6
    for kind in kinds:
        assert_nothing_ran_dry([counts[kind, outcome] for outcome in Outcome])


def assert_nothing_ran_dry(numbers: list[int]) -> None:
    """What is compared is of every outcome, and a good part is what the normaliser takes."""
    assert min(numbers) > sum(numbers) // 20, numbers
    assert numbers[0] > sum(numbers) // 5, numbers


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"{}",
        b"null",
        b'{"correlation_id":"a","status":200,"headers":{}} x',
        b'{"correlation_id":"a","status":200,"headers":{}',
        b'{"correlation_id":"a","status":007,"headers":{}}',
        b'{"correlation_id":"a","status":-1,"headers":{}}',
        b'{"correlation_id":"a","status":200,"headers":{"a":"b"}}',
        b'{"correlation_id":"a","status":200,"headers":{"a":["b"]},"headers":{}}',
        b'{"correlation_id":"a","status":200,"headers":{"a":["b",]}}',
        b'{"correlation_id":"a","status":200,"headers":{"a":["\x01"]}}',
        b'{"correlation_id":"a","status":200,"headers":{"a":["\\x"]}}',
        b'{"correlation_id":"a","status":200,"headers":{"a":["b"],"A":["c"]}}',
        b'{"correlation_id":"a","status":200,"headers":{"a":["b"],}}',
        b'{"correlation_id":"","status":200,"headers":{}}',
        b'{"status":200,"headers":{}}',
    ],
)
def test_what_is_not_surely_understood_is_left_to_python(broken: bytes) -> None:
    assert Normaliser("canonical", False).event(0x12, broken) is None


def test_all_but_header_events_are_left_to_python() -> None:
    normaliser = Normaliser("canonical", False)
    for frame_type in (0x11, 0x13, 0x14, 0x15, 0x16, 0x17, 0x20, 1, -1, 255):
        assert normaliser.event(frame_type, b'{"correlation_id":"a","status":200,"headers":{}}') is None


def test_more_headers_than_it_has_room_for_are_left_to_python() -> None:
    payload = {"correlation_id": "a", "status": 200, "headers": {f"x-{n}": ["v"] for n in range(128)}}
    assert compare(RESPONSE, orjson.dumps(payload), FORMS[0]) is Outcome.ALIKE
    payload["headers"] = {f"x-{n}": ["v"] for n in range(129)}
    assert compare(RESPONSE, orjson.dumps(payload), FORMS[0]) is Outcome.LEFT


def test_a_large_event_leaves_no_large_buffer() -> None:
    normaliser = Normaliser("canonical", False)
    payload = {"correlation_id": "a", "status": 200, "headers": {"x": ["v" * 5_000_000]}}
    assert normaliser.event(0x12, orjson.dumps(payload)) is not None
    assert normaliser.capacity > 5_000_000
    payload["headers"] = {"x": ["v"]}
    assert normaliser.event(0x12, orjson.dumps(payload)) is not None
    assert normaliser.capacity == 65_536
