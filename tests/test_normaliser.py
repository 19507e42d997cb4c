"""The one-pass normaliser against the Python path: the same bytes, or it leaves the event alone."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel_wasm._fastpath import Normaliser
from sentinel_wasm.errors import EventError
from sentinel_wasm.guest.inputs import InputWriter
from sentinel_wasm.protocol import events
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.settings import HeaderNames, HeaderValues

DATA = Path(__file__).parent / "data"
MUTATIONS = 20_000

NAMES: list[HeaderNames] = ["canonical", "lower", "as-is"]
VALUES: list[HeaderValues] = ["joined", "list"]
FORMS = [(names, values) for names in NAMES for values in VALUES]
NORMALISERS = {form: Normaliser(form[0], form[1] == "list") for form in FORMS}
WRITERS = {form: InputWriter(*form) for form in FORMS}


def specified(frame_type: int, frame: bytes, writer: InputWriter) -> tuple[int, int, str, bytes]:
    """What the Python path makes of an event. Raises EventError or orjson.JSONDecodeError as it does."""
    payload = orjson.loads(frame)
    version = 2
    if frame_type == 0:
        if not isinstance(payload, dict):
            raise EventError("no object")
        version, kind = payload.get("version", 1), events.EVENT_NAMES[str(payload.get("event_type"))]
        payload = payload.get("payload")
        frame_type = {EventKind.REQUEST_HEADERS: 0x10, EventKind.RESPONSE_HEADERS: 0x12}[kind]
    event = events.parse(events.EVENT_TYPES[frame_type], payload)
    if isinstance(event, events.RequestHeaders):
        data = writer.request_headers(
            event.method, event.uri, event.client_ip, event.correlation_id, event.headers
        )
    else:
        assert isinstance(event, events.ResponseHeaders)
        data = writer.response_headers(event.status, event.correlation_id, event.headers)
    return frame_type, version, event.correlation_id, data


def agrees(frame_type: int, frame: bytes, form: tuple[HeaderNames, HeaderValues]) -> bool:
    """Whether the normaliser took the event; then it must have made what the specification makes."""
    found = NORMALISERS[form].event(frame_type, frame)
    if found is None:
        return False
    assert found == specified(frame_type, frame, WRITERS[form])
    if frame_type:
        assert found[2] == events.correlation_id(orjson.loads(frame))
    return True


def captured() -> list[tuple[int, bytes]]:
    """Every header event that the real proxies sent, as (v2's type or 0, payload)."""
    found = []
    for line in (DATA / "zentinel-proxy-0.6.45-v2.jsonl").read_text().splitlines():
        frame = json.loads(line)
        if frame["type"] in (0x10, 0x12):
            found.append((frame["type"], frame["payload"].encode()))
    for line in (DATA / "sentinel-proxy-0.2.5-v1.jsonl").read_text().splitlines():
        payload = json.loads(line)["payload"]
        if '"event_type":"request_headers"' in payload:
            found.append((0, payload.encode()))
    return found


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_every_captured_header_event_takes_the_one_pass(form: tuple[HeaderNames, HeaderValues]) -> None:
    taken = [agrees(frame_type, frame, form) for frame_type, frame in captured()]
    assert len(taken) == 46
    assert all(taken)


texts = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
    st.sampled_from(
        ["", "a", "\\", '"', "\n\t", "\x00", "\x7f", "é", "\U0001f600", "/", "</script>", "a" * 70]
    ),
)
names = st.one_of(
    st.sampled_from(["host", "Host", "user-agent", "USER-AGENT", "cookie", "Cookie", ":method", "-", ""]),
    st.text(st.sampled_from("abcXYZ-:09 "), max_size=12),
    texts,
)
values = st.one_of(
    st.lists(texts, max_size=3), st.lists(texts, min_size=1, max_size=1), st.none(), st.integers(), texts
)
ips = st.one_of(
    st.sampled_from(
        [
            "127.0.0.1:53818",
            "10.0.0.1",
            "[::1]:53818",
            "[::1]",
            "::1",
            "[::1]x",
            "[]:1",
            ":1",
            "1:",
            "1:2:3",
            "[1",
            "[1:2",
            "[1]x:2",
            "",
        ]
    ),
    st.text(st.sampled_from("[]:.0123456789ax"), max_size=12),
    texts,
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)
odd = st.one_of(scalars, st.lists(scalars, max_size=2), st.dictionaries(texts, scalars, max_size=2))


@st.composite
def objects(draw: st.DrawFn, fields: dict[str, st.SearchStrategy[Any]]) -> dict[str, Any]:
    """An object with these fields in any order, now and then one odd or missing, and others between."""
    made = dict(draw(st.dictionaries(texts, scalars, max_size=2)))
    for name in draw(st.permutations(list(fields))):
        luck = draw(st.integers(0, 24))
        if luck == 0:
            continue
        made[name] = draw(odd if luck == 1 else fields[name])
    return made


headers = st.dictionaries(names, st.one_of(values, st.lists(texts, min_size=1, max_size=2)), max_size=6)
identities = st.one_of(st.text(st.sampled_from("abc019-"), min_size=1, max_size=12), texts)
metadata = objects({"client_ip": ips, "correlation_id": identities, "client_port": st.integers(0, 65535)})
request_payloads = objects({"metadata": metadata, "method": texts, "uri": texts, "headers": headers})
v2_request_payloads = objects(
    {"correlation_id": identities, "metadata": metadata, "method": texts, "uri": texts, "headers": headers}
)
response_payloads = objects({"correlation_id": identities, "status": st.integers(0, 999), "headers": headers})
v1_requests = st.one_of(
    st.fixed_dictionaries(
        {"version": st.integers(0, 3), "event_type": st.just("request_headers"), "payload": request_payloads}
    ),
    st.fixed_dictionaries(
        {
            "version": st.integers(0, 3),
            "event_type": st.just("response_headers"),
            "payload": response_payloads,
        }
    ),
)
generated = st.one_of(
    st.tuples(st.just(0), v1_requests),
    st.tuples(st.just(0x10), v2_request_payloads),
    st.tuples(st.just(0x12), response_payloads),
)


@given(generated, st.sampled_from(FORMS), st.booleans(), st.booleans())
@settings(max_examples=2000, deadline=None)
def test_generated_events_agree(
    event: tuple[int, Any], form: tuple[HeaderNames, HeaderValues], spaced: bool, ascii_only: bool
) -> None:
    frame_type, payload = event
    text = json.dumps(
        payload,
        ensure_ascii=ascii_only,
        separators=None if spaced else (",", ":"),
        indent=None,
        allow_nan=False,
    )
    agrees(frame_type, text.encode(errors="replace"), form)


def mutated(frame: bytes, pick: random.Random) -> bytes:
    """The frame with a few bytes replaced, doubled, cut out or swapped for a piece of JSON."""
    data = bytearray(frame)
    for _ in range(pick.choice((1, 1, 1, 2, 4))):
        at = pick.randrange(len(data))
        match pick.randrange(6):
            case 0:
                data[at] = pick.randrange(256)
            case 1:
                del data[at : at + pick.randrange(1, 6)]
            case 2:
                data[at:at] = data[at : at + pick.randrange(1, 40)]
            case 3:
                data[at:at] = pick.choice(
                    (b'"', b"\\", b"\\n", b"\\u0041", b",", b"}", b"]", b" ", b"null", b"1e5", b"\xc3\xa9")
                )
            case 4:
                data[at] = pick.choice(b'"\\{}[]:,0123456789 aA-')
            case 5:
                other = pick.randrange(len(data))
                data[at], data[other] = data[other], data[at]
        if not data:
            return b"{"
    return bytes(data)


def test_mutated_captured_events_agree(capsys: pytest.CaptureFixture[str]) -> None:
    pick = random.Random(20261122)
    frames = captured()
    counts: Counter[str] = Counter()
    for _ in range(MUTATIONS):
        frame_type, frame = pick.choice(frames)
        taken = agrees(frame_type, mutated(frame, pick), pick.choice(FORMS))
        counts["taken" if taken else "left to Python"] += 1
    with capsys.disabled():
        print(f"\nmutated events: {dict(counts)}")
    # Neither side of the comparison may run dry.
    assert min(counts["taken"], counts["left to Python"]) > MUTATIONS // 10


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
    assert agrees(0x12, orjson.dumps(payload), FORMS[0])
    payload["headers"] = {f"x-{n}": ["v"] for n in range(129)}
    assert not agrees(0x12, orjson.dumps(payload), FORMS[0])


def test_a_large_event_leaves_no_large_buffer() -> None:
    normaliser = Normaliser("canonical", False)
    payload = {"correlation_id": "a", "status": 200, "headers": {"x": ["v" * 5_000_000]}}
    assert normaliser.event(0x12, orjson.dumps(payload)) is not None
    assert normaliser.capacity > 5_000_000
    payload["headers"] = {"x": ["v"]}
    assert normaliser.event(0x12, orjson.dumps(payload)) is not None
    assert normaliser.capacity == 65_536
