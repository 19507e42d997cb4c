"""Events as gRPC has them, made the JSON that proxies send over a Unix socket: what the agent reads of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import orjson
from google.protobuf.message import DecodeError, Message

from sentinel_wasm import base64
from sentinel_wasm.errors import EventError
from sentinel_wasm.grpc import agent_pb2 as pb
from sentinel_wasm.protocol.frames import FrameType

M = TypeVar("M", bound=Message)

_OPCODES = {1: "text", 2: "binary", 3: "ping", 4: "pong", 5: "close"}


class Event(NamedTuple):
    """As the frame of a Unix socket would have it."""

    frame_type: FrameType
    correlation_id: str
    payload: bytes


def parse(data: bytes, kind: type[M]) -> M:
    """A message of this kind. Raises EventError."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise EventError(f"not a {kind.__name__}: broken protobuf") from None


def event_of(name: str, message: pb.ProxyToAgent) -> Event:
    """What the member `name` of a message says, one of KINDS. Raises EventError."""
    frame_type, make = KINDS[name]
    payload = make(getattr(message, name))
    if not payload["correlation_id"]:
        raise EventError(f"{name} has no correlation_id")
    return Event(frame_type, payload["correlation_id"], orjson.dumps(payload))


def configure(message: pb.ConfigureEvent) -> bytes:
    """The payload of a ConfigureEvent. Raises EventError."""
    try:
        config = orjson.loads(message.config_json) if message.config_json else None
    except orjson.JSONDecodeError as error:
        raise EventError(f"config_json is not JSON: {error}") from None
    return orjson.dumps({"correlation_id": "", "config": config})


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
        "metadata": {"client_ip": metadata.client_ip, "correlation_id": identity},
        "method": event.method,
        "uri": event.uri,
    }


def _response_headers(event: pb.ResponseHeadersEvent) -> dict[str, Any]:
    return {
        "correlation_id": event.correlation_id,
        "headers": _headers(event.headers),
        "status": event.status_code,
    }


def _body_chunk(seen: str) -> Callable[[pb.BodyChunkEvent], dict[str, Any]]:
    def made(event: pb.BodyChunkEvent) -> dict[str, Any]:
        return {
            "correlation_id": event.correlation_id,
            "data": base64.encode(event.data),
            "is_last": event.is_last,
            "total_size": event.total_size if event.HasField("total_size") else None,
            "chunk_index": event.chunk_index,
            seen: event.bytes_transferred,
        }

    return made


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
        "content": event.content,
        "model": event.model if event.HasField("model") else None,
    }


KINDS: dict[str, tuple[FrameType, Callable[[Any], dict[str, Any]]]] = {
    "request_headers": (FrameType.REQUEST_HEADERS, _request_headers),
    "request_body_chunk": (FrameType.REQUEST_BODY_CHUNK, _body_chunk("bytes_received")),
    "response_headers": (FrameType.RESPONSE_HEADERS, _response_headers),
    "response_body_chunk": (FrameType.RESPONSE_BODY_CHUNK, _body_chunk("bytes_sent")),
    "request_complete": (FrameType.REQUEST_COMPLETE, _request_complete),
    "websocket_frame": (FrameType.WEBSOCKET_FRAME, _websocket_frame),
    "guardrail": (FrameType.GUARDRAIL_INSPECT, _guardrail),
}
