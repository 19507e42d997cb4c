"""Events as gRPC has them, made the JSON that proxies send over a Unix socket: what the agent reads of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import orjson
from google.protobuf.message import DecodeError, Message

from sentinel_wasm import base64
from sentinel_wasm.errors import EventError
from sentinel_wasm.grpc import agent_pb2 as pb
from sentinel_wasm.protocol.events import BodyChunk, EventKind
from sentinel_wasm.protocol.frames import FrameType

Event = tuple[int, str, bytes]
"""The type of a Unix socket's frame, the correlation id, and the payload."""

M = TypeVar("M", bound=Message)

_PROMPT = 1  # of a guardrail's content types
_OPCODES = {1: "text", 2: "binary", 3: "ping", 4: "pong", 5: "close"}


def parse(data: bytes, kind: type[M]) -> M:
    """A message of this kind. Raises EventError."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise EventError(f"not a {kind.__name__}: broken protobuf") from None


def event_of(name: str, message: pb.ProxyToAgent) -> Event:
    """What the member `name` of a message says, an event other than a body chunk. Raises EventError."""
    frame_type, make = _KINDS[name]
    payload = make(getattr(message, name))
    if not payload["correlation_id"]:
        raise EventError(f"{name} has no correlation_id")
    return frame_type, payload["correlation_id"], orjson.dumps(payload)


def chunk_of(name: str, message: pb.BodyChunkEvent) -> tuple[EventKind, BodyChunk]:
    """What the member `name` says. Raises EventError."""
    if not message.correlation_id:
        raise EventError(f"{name} has no correlation_id")
    chunk = BodyChunk(
        message.correlation_id,
        base64.encode(message.data),
        message.data,
        message.is_last,
        message.total_size if message.HasField("total_size") else None,
        message.chunk_index,
        message.bytes_transferred,
    )
    return EventKind[name.upper()], chunk


def configure(message: pb.ConfigureEvent) -> bytes:
    """The payload of a ConfigureEvent. Raises EventError."""
    try:
        config = orjson.loads(message.config_json) if message.config_json else None
        return orjson.dumps({"correlation_id": "", "config": config})
    except orjson.JSONDecodeError as error:
        raise EventError(f"config_json is not JSON: {error}") from None
    except orjson.JSONEncodeError as error:
        raise EventError(f"config_json cannot be passed on: {error}") from None


def _headers(headers: Iterable[pb.Header]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for header in headers:
        found.setdefault(header.name, []).append(header.value)
    return found


def _request_headers(event: pb.RequestHeadersEvent) -> dict[str, Any]:
    metadata = event.metadata
    identity = metadata.correlation_id
    return {
        "correlation_id": identity,
        "headers": _headers(event.headers),
        "metadata": {
            "client_ip": metadata.client_ip,
            "correlation_id": identity,
            "route_id": metadata.route_id if metadata.HasField("route_id") else None,
        },
        "method": event.method,
        "uri": event.uri,
    }


def _response_headers(event: pb.ResponseHeadersEvent) -> dict[str, Any]:
    return {
        "correlation_id": event.correlation_id,
        "headers": _headers(event.headers),
        "status": event.status_code,
    }


def _request_complete(event: pb.RequestCompleteEvent) -> dict[str, Any]:
    return {
        "correlation_id": event.correlation_id,
        "status": event.status_code,
        "duration_ms": event.duration_ms,
        "request_body_size": event.bytes_received,
        "response_body_size": event.bytes_sent,
        "error": event.error if event.HasField("error") else None,
    }


def _websocket_frame(event: pb.WebSocketFrameEvent) -> dict[str, Any]:
    return {
        "correlation_id": event.correlation_id,
        "opcode": _OPCODES.get(event.frame_type),
        "data": base64.encode(event.payload),
        "client_to_server": event.client_to_server,
        "fin": True,
    }


def _guardrail(event: pb.GuardrailInspectEvent) -> dict[str, Any]:
    return {
        "correlation_id": event.correlation_id,
        "inspection_type": "prompt_injection" if event.content_type == _PROMPT else "pii_detection",
        "content": event.content,
        "model": event.model if event.HasField("model") else None,
    }


_KINDS: dict[str, tuple[FrameType, Callable[[Any], dict[str, Any]]]] = {
    "request_headers": (FrameType.REQUEST_HEADERS, _request_headers),
    "response_headers": (FrameType.RESPONSE_HEADERS, _response_headers),
    "request_complete": (FrameType.REQUEST_COMPLETE, _request_complete),
    "websocket_frame": (FrameType.WEBSOCKET_FRAME, _websocket_frame),
    "guardrail": (FrameType.GUARDRAIL_INSPECT, _guardrail),
}
