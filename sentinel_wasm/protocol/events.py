"""Events: the proxy's JSON checked and unpacked (agent-protocol.md, sections 2 and 3).

The parsers take a payload as orjson gives it and raise EventError where its shape is not the protocol's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import orjson

from sentinel_wasm import base64
from sentinel_wasm.errors import EventError, FrameError


class EventKind(IntEnum):
    """The numbers of `supported_events` in v2's capabilities."""

    CONFIGURE = 0
    REQUEST_HEADERS = 1
    REQUEST_BODY_CHUNK = 2
    RESPONSE_HEADERS = 3
    RESPONSE_BODY_CHUNK = 4
    REQUEST_COMPLETE = 5
    WEBSOCKET_FRAME = 6
    GUARDRAIL_INSPECT = 7


# v1's names; the proxy's serializer writes web_socket_frame, the SDKs websocket_frame.
EVENT_NAMES = {
    "configure": EventKind.CONFIGURE,
    "request_headers": EventKind.REQUEST_HEADERS,
    "request_body_chunk": EventKind.REQUEST_BODY_CHUNK,
    "response_headers": EventKind.RESPONSE_HEADERS,
    "response_body_chunk": EventKind.RESPONSE_BODY_CHUNK,
    "request_complete": EventKind.REQUEST_COMPLETE,
    "web_socket_frame": EventKind.WEBSOCKET_FRAME,
    "websocket_frame": EventKind.WEBSOCKET_FRAME,
    "guardrail_inspect": EventKind.GUARDRAIL_INSPECT,
}

# v2's type bytes.
EVENT_TYPES = {
    0x10: EventKind.REQUEST_HEADERS,
    0x11: EventKind.REQUEST_BODY_CHUNK,
    0x12: EventKind.RESPONSE_HEADERS,
    0x13: EventKind.RESPONSE_BODY_CHUNK,
    0x14: EventKind.REQUEST_COMPLETE,
    0x15: EventKind.WEBSOCKET_FRAME,
    0x16: EventKind.GUARDRAIL_INSPECT,
    0x17: EventKind.CONFIGURE,
}

_ID_IN_BROKEN_JSON = re.compile(rb'"correlation_id"\s*:\s*"([\w.:-]{1,200})"', re.ASCII)

Headers = dict[str, Any]


class RequestHeaders(NamedTuple):
    correlation_id: str
    method: str
    uri: str
    client_ip: str
    headers: Headers


class ResponseHeaders(NamedTuple):
    correlation_id: str
    status: int
    headers: Headers


class BodyChunk(NamedTuple):
    """`text` is the base64 as it came, `data` what it holds."""

    correlation_id: str
    text: str
    data: bytes
    is_last: bool
    total_size: int | None
    chunk_index: int
    bytes_seen: int


class RequestComplete(NamedTuple):
    correlation_id: str
    fields: dict[str, Any]


class Configure(NamedTuple):
    correlation_id: str
    config: Any


class WebSocketFrame(NamedTuple):
    """As BodyChunk; `frame_index` counts those of one direction."""

    correlation_id: str
    opcode: str
    text: str
    data: bytes
    client_to_server: bool
    frame_index: int
    fin: bool
    route_id: str | None
    client_ip: str


class GuardrailInspect(NamedTuple):
    correlation_id: str
    inspection_type: str
    content: str
    model: str | None
    categories: list[str]
    route_id: str | None
    metadata: dict[str, str]


Event = (
    RequestHeaders
    | ResponseHeaders
    | BodyChunk
    | RequestComplete
    | Configure
    | WebSocketFrame
    | GuardrailInspect
)


_WORDS: dict[type | None, str] = {
    str: "a string",
    int: "an integer",
    bool: "a boolean",
    dict: "an object",
    list: "an array",
    float: "a number",
    type(None): "absent or null",
}


def _found(value: Any) -> str:
    return _WORDS.get(type(value), "of an unknown type")


def correlation_id(payload: Any) -> str | None:
    """The id of an event, at the top of its payload or (v1's request_headers) in its metadata, or None."""
    if isinstance(payload, dict):
        found = payload.get("correlation_id")
        if found is None and isinstance(metadata := payload.get("metadata"), dict):
            found = metadata.get("correlation_id")
        if isinstance(found, str):
            return found
    return None


def field(payload: dict[str, Any], name: str, kind: type, default: Any = ...) -> Any:
    """A field of exactly this type; absent or null gives the default where there is one.

    Raises EventError.
    """
    value = payload.get(name)
    if type(value) is kind:
        return value
    if value is None and default is not ...:
        return default
    raise EventError(f"{name} is {_found(value)}, expected {_WORDS[kind]}")


def _request_headers(payload: dict[str, Any]) -> RequestHeaders:
    metadata = field(payload, "metadata", dict)
    return RequestHeaders(
        field(payload, "correlation_id", str, None) or field(metadata, "correlation_id", str),
        field(payload, "method", str),
        field(payload, "uri", str),
        field(metadata, "client_ip", str),
        field(payload, "headers", dict),
    )


def _response_headers(payload: dict[str, Any]) -> ResponseHeaders:
    return ResponseHeaders(
        field(payload, "correlation_id", str), field(payload, "status", int), field(payload, "headers", dict)
    )


def _data(payload: dict[str, Any]) -> tuple[str, bytes]:
    """As it came, and decoded."""
    text = field(payload, "data", str)
    try:
        return text, base64.decode(text)
    except ValueError as error:
        raise EventError(f"data is not base64: {error}") from None


def _body_chunk(payload: dict[str, Any], seen: str) -> BodyChunk:
    text, data = _data(payload)
    return BodyChunk(
        field(payload, "correlation_id", str),
        text,
        data,
        field(payload, "is_last", bool),
        field(payload, "total_size", int, None),
        _chunk_index(payload),
        field(payload, seen, int, 0),
    )


def _chunk_index(payload: dict[str, Any]) -> int:
    """An answer's mutation repeats it, and proxies cannot read one that is no u32."""
    index = field(payload, "chunk_index", int, 0)
    if not 0 <= index < 2**32:
        raise EventError(f"chunk_index is {index}, expected 0 to 4294967295")
    assert isinstance(index, int)
    return index


def _request_body_chunk(payload: dict[str, Any]) -> BodyChunk:
    return _body_chunk(payload, "bytes_received")


def _response_body_chunk(payload: dict[str, Any]) -> BodyChunk:
    return _body_chunk(payload, "bytes_sent")


def _request_complete(payload: dict[str, Any]) -> RequestComplete:
    identity = field(payload, "correlation_id", str)
    numbers = ("status", "duration_ms", "request_body_size", "response_body_size", "upstream_attempts")
    fields = {"correlation_id": identity} | {name: field(payload, name, int, 0) for name in numbers}
    return RequestComplete(identity, fields | {"error": field(payload, "error", str, None)})


def _configure(payload: dict[str, Any]) -> Configure:
    # v1's Configure has no correlation id: there, answers are matched by order.
    return Configure(field(payload, "correlation_id", str, ""), payload.get("config"))


def _websocket_frame(payload: dict[str, Any]) -> WebSocketFrame:
    text, data = _data(payload)
    return WebSocketFrame(
        field(payload, "correlation_id", str),
        field(payload, "opcode", str),
        text,
        data,
        field(payload, "client_to_server", bool),
        field(payload, "frame_index", int, 0),
        field(payload, "fin", bool, True),
        field(payload, "route_id", str, None),
        field(payload, "client_ip", str, ""),
    )


def _guardrail_inspect(payload: dict[str, Any]) -> GuardrailInspect:
    categories = field(payload, "categories", list, [])
    if not {str}.issuperset(map(type, categories)):
        raise EventError("categories has something that is not a string in it")
    metadata = field(payload, "metadata", dict, {})
    if not {str}.issuperset(map(type, metadata.values())):
        raise EventError("metadata has a value that is not a string")
    return GuardrailInspect(
        field(payload, "correlation_id", str),
        field(payload, "inspection_type", str),
        field(payload, "content", str),
        field(payload, "model", str, None),
        categories,
        field(payload, "route_id", str, None),
        metadata,
    )


_PARSERS: dict[EventKind, Callable[[dict[str, Any]], Event]] = {
    EventKind.CONFIGURE: _configure,
    EventKind.REQUEST_HEADERS: _request_headers,
    EventKind.REQUEST_BODY_CHUNK: _request_body_chunk,
    EventKind.RESPONSE_HEADERS: _response_headers,
    EventKind.RESPONSE_BODY_CHUNK: _response_body_chunk,
    EventKind.REQUEST_COMPLETE: _request_complete,
    EventKind.WEBSOCKET_FRAME: _websocket_frame,
    EventKind.GUARDRAIL_INSPECT: _guardrail_inspect,
}


def parse(kind: EventKind, payload: Any) -> Event:
    """The event of a payload; raises EventError. Header values are checked where they are folded."""
    if type(payload) is not dict:
        raise EventError(f"the payload is {_found(payload)}, expected an object")
    return _PARSERS[kind](payload)


def loads(frame: bytes) -> Any:
    """An event's JSON. Raises EventError."""
    try:
        return orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        raise EventError(f"not JSON: {error}") from None


def salvaged_id(frame: bytes) -> str:
    """The correlation id of an event whose JSON is broken, where only one stands in it.

    Closing instead costs a v2 proxy the connection for good (agent-protocol.md, section 6); where there is no
    other way: FrameError.
    """
    return only_id(set(_ID_IN_BROKEN_JSON.findall(frame)))


def only_id(found: set[bytes]) -> str:
    """The correlation id, where all that stand in an event are the same. Raises FrameError."""
    if len(found) != 1:
        raise FrameError("an event without a readable correlation id cannot be answered")
    return str(found.pop(), "ascii")
