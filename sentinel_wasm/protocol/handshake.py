"""v2's first exchange on a Unix socket (agent-protocol.md, section 3)."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple, get_args

import orjson

from sentinel_wasm import __version__
from sentinel_wasm.errors import FrameError, ProtocolError, RefusedError
from sentinel_wasm.protocol.events import EventKind, field

AGENT_ID = "sentinel-wasm-agent"
PROTOCOL_VERSION = 2
HEALTH_STATES = {"healthy": 1, "degraded": 2, "draining": 3, "unhealthy": 4}  # of a HealthStatus
_SHOWN = 8  # of a proxy's versions in a refusal

Encoding = Literal["json", "msgpack"]
_ENCODINGS = get_args(Encoding)
_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", re.ASCII)
_LAST_WITH_ARRAYS = 0, 5, 13  # which wrote a struct as a MessagePack array, without its fields' names

# What the agent handles, not what today's module exports: a reload cannot renegotiate.
CAPABILITIES: dict[str, Any] = {
    "agent_id": AGENT_ID,
    "name": "Sentinel WebAssembly agent",
    "version": __version__,
    "supported_events": [int(kind) for kind in EventKind],
    "features": {
        "streaming_body": True,
        "websocket": True,
        "guardrails": True,
        "config_push": True,
        "metrics_export": True,
        "concurrent_requests": 1024,
        "cancellation": True,
        "flow_control": False,
        "health_reporting": True,
    },
    "limits": {"max_body_size": 10 * 1024 * 1024, "max_concurrency": 1024, "preferred_chunk_size": 64 * 1024},
}


class Response(NamedTuple):
    """To a HandshakeRequest. `refused`: why, None where it was accepted."""

    payload: bytes
    encoding: Encoding
    refused: str | None


def respond(payload: bytes) -> Response:
    """Raises FrameError where the request is not a handshake."""
    try:
        request = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise FrameError(f"the handshake is not JSON: {error}") from None
    versions = request.get("supported_versions") if isinstance(request, dict) else None
    if not isinstance(versions, list):
        raise FrameError("the handshake has no list of supported_versions")
    refused = refusal(versions)
    encoding = _encoding(request)
    answer = {
        "protocol_version": PROTOCOL_VERSION,
        "success": refused is None,
        "error": refused,
        "encoding": encoding,
        "capabilities": CAPABILITIES,
    }
    return Response(orjson.dumps(answer), encoding, refused)


def refusal(versions: list[Any]) -> str | None:
    """Why a proxy that speaks these versions is refused; None: it is not."""
    if PROTOCOL_VERSION in versions:
        return None
    # What stands in the list can be long, or nested deeper than Python writes.
    spoken = [version for version in versions if type(version) is int][:_SHOWN]
    return f"no common version: this agent speaks {PROTOCOL_VERSION}, the proxy {spoken}"


def _encoding(request: dict[str, Any]) -> Encoding:
    """The first that both know: the list is in the order of the proxy's preference."""
    offered = request.get("supported_encodings")
    version = request.get("proxy_version")
    found = _VERSION.match(version) if type(version) is str else None
    if type(offered) is not list or (found and tuple(map(int, found.groups())) <= _LAST_WITH_ARRAYS):
        return "json"
    return next((encoding for encoding in offered if encoding in _ENCODINGS), "json")


def registration(token: str | None) -> bytes:
    """What the agent says first where it has opened the connection (section 5)."""
    request = {
        "protocol_version": PROTOCOL_VERSION,
        "agent_id": AGENT_ID,
        "capabilities": CAPABILITIES,
        "auth_token": token,
        "metadata": None,
    }
    return orjson.dumps(request)


class Registered(NamedTuple):
    """What the proxy says of itself."""

    proxy_version: str
    connection_id: str


def read_registration(payload: bytes) -> Registered:
    """The proxy's answer. Raises RefusedError, or ProtocolError where it is none."""
    try:
        answer = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"the answer is not JSON: {error}") from None
    if type(answer) is not dict:
        raise ProtocolError("the answer is not an object")
    if not field(answer, "success", bool):
        raise RefusedError(field(answer, "error", str, None) or "the proxy does not say why")
    return Registered(field(answer, "proxy_version", str, ""), field(answer, "connection_id", str, ""))
