"""The one-pass normalisers beside the Python path, which is their specification."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path

import orjson

from sentinel_wasm import _chunks
from sentinel_wasm._fastpath import Normaliser
from sentinel_wasm.errors import EventError
from sentinel_wasm.guest.inputs import InputWriter
from sentinel_wasm.protocol import events
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.settings import HeaderNames, HeaderValues

DATA = Path(__file__).parent / "data"

V1 = 0
REQUEST = 0x10
REQUEST_BODY = 0x11
RESPONSE = 0x12
RESPONSE_BODY = 0x13
BODIES = (REQUEST_BODY, RESPONSE_BODY)
KINDS = {EventKind.REQUEST_HEADERS: REQUEST, EventKind.RESPONSE_HEADERS: RESPONSE}

Form = tuple[HeaderNames, HeaderValues]
NAMES: list[HeaderNames] = ["canonical", "lower", "as-is"]
VALUES: list[HeaderValues] = ["joined", "list"]
FORMS: list[Form] = [(names, values) for names in NAMES for values in VALUES]
NORMALISERS = {form: Normaliser(form[0], form[1] == "list") for form in FORMS}
WRITERS = {form: InputWriter(*form) for form in FORMS}


class Outcome(Enum):
    ALIKE = "both take it, alike"
    LEFT = "left to Python"
    REFUSED = "both refuse"


class Disagreement(AssertionError):
    """The normaliser's answer is not the Python path's."""


def compare(frame_type: int, frame: bytes, form: Form) -> Outcome:
    """What the two make of an event (0: a v1 request). Raises Disagreement."""
    found: object
    try:
        found = (
            _chunks.chunk(frame_type, frame)
            if frame_type in BODIES
            else NORMALISERS[form].event(frame_type, frame)
        )
    except ValueError:
        found = None  # not base64
    try:
        expected: object = specified(frame_type, frame, form)
    except EventError as error:
        if found is None:
            return Outcome.REFUSED
        raise Disagreement(_words(frame_type, frame, form, found, error)) from None
    if found is None:
        return Outcome.LEFT
    if found != expected:
        raise Disagreement(_words(frame_type, frame, form, found, expected))
    return Outcome.ALIKE


def _words(frame_type: int, frame: bytes, form: Form, found: object, expected: object) -> str:
    return (
        f"type {frame_type:#04x}, {form[0]} names, {form[1]} values: {frame!r}\n"
        f"the normaliser:  {found!r}\nthe Python path: {expected!r}"
    )


def specified(
    frame_type: int, frame: bytes, form: Form
) -> tuple[int, int, str, bytes] | tuple[str, int, bytes, bytes]:
    """What the agent makes of an event without a normaliser. Raises EventError where it can't.

    (v2's event type, version, correlation id of the answer, the guest's input), or of a body chunk
    (correlation id, its index, its data, the guest's input)
    """
    try:
        payload = orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        raise EventError(f"not JSON: {error}") from None
    version = 2
    if frame_type == V1:
        frame_type, version, payload = _opened(payload)
        event = events.parse(events.EVENT_TYPES[frame_type], payload)
        identity: str | None = event.correlation_id
    else:
        identity = events.correlation_id(payload)
        event = events.parse(events.EVENT_TYPES[frame_type], payload)
    if identity is None:
        raise EventError("the event has no correlation_id")
    data = WRITERS[form].event(event)
    if isinstance(event, events.BodyChunk):
        return identity, event.chunk_index, event.data, data
    return frame_type, version, identity, data


def _opened(request: object) -> tuple[int, int, object]:
    """v1's envelope: (v2's event type, version, payload)"""
    if type(request) is not dict:
        raise EventError("the request is not an object")
    version = request.get("version")
    if type(version) is not int or not 0 <= version < 2**32:
        version = 1
    name = request.get("event_type")
    kind = events.EVENT_NAMES.get(name) if type(name) is str else None
    if kind not in KINDS:
        raise EventError("no header event")
    return KINDS[kind], version, request.get("payload")


def captured_v1() -> list[bytes]:
    """What the real v1 proxy sent, as payloads."""
    lines = (DATA / "sentinel-proxy-0.2.5-v1.jsonl").read_text().splitlines()
    return [json.loads(line)["payload"].encode() for line in lines]


def captured_v2() -> list[tuple[int, bytes]]:
    """What the real v2 proxy sent, as (type, payload)."""
    lines = (DATA / "zentinel-proxy-0.6.45-v2.jsonl").read_text().splitlines()
    return [(frame["type"], frame["payload"].encode()) for frame in map(json.loads, lines)]


def captured() -> list[tuple[int, bytes]]:
    """Every header event that they sent, as (v2's type or 0, payload)."""
    is_request = b'"event_type":"request_headers"'
    return [
        *(frame for frame in captured_v2() if frame[0] in (REQUEST, RESPONSE)),
        *((V1, payload) for payload in captured_v1() if is_request in payload),
    ]


def captured_chunks() -> list[tuple[int, bytes]]:
    """Every body chunk that the v2 proxy sent."""
    return [frame for frame in captured_v2() if frame[0] in BODIES]


def in_both_protocols() -> list[tuple[int, bytes]]:
    """The captured events, and v2's as v1 would have sent them: the v1 proxy tells of no responses."""
    names = {KINDS[kind]: name.encode() for name, kind in events.EVENT_NAMES.items() if kind in KINDS}
    found = captured()
    return found + [
        (V1, b'{"version":1,"event_type":"' + names[frame_type] + b'","payload":' + frame + b"}")
        for frame_type, frame in found
        if frame_type != V1
    ]
