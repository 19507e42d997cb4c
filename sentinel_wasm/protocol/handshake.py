"""v2's first exchange on a Unix socket (agent-protocol.md, section 3)."""

from __future__ import annotations

from typing import Any

import orjson

from sentinel_wasm import __version__
from sentinel_wasm.errors import FrameError
from sentinel_wasm.protocol.events import EventKind

AGENT_ID = "sentinel-wasm-agent"
PROTOCOL_VERSION = 2
_SHOWN = 8  # of a proxy's versions in a refusal

# What the agent handles, not what today's module exports: a reload cannot renegotiate.
CAPABILITIES: dict[str, Any] = {
    "agent_id": AGENT_ID,
    "name": "Sentinel WebAssembly agent",
    "version": __version__,
    "supported_events": [int(kind) for kind in EventKind],
    "features": {
        "streaming_body": True,
        # Answered with allow, but no module can decide on them.
        "websocket": False,
        "guardrails": False,
        "config_push": True,
        "metrics_export": True,
        "concurrent_requests": 1024,
        "cancellation": True,
        "flow_control": False,
        "health_reporting": True,
    },
    "limits": {"max_body_size": 10 * 1024 * 1024, "max_concurrency": 1024, "preferred_chunk_size": 64 * 1024},
}


def respond(payload: bytes) -> tuple[bytes, str | None]:
    """The HandshakeResponse to a HandshakeRequest, and why it was refused (None: accepted).

    Raises FrameError where the request is not a handshake.
    """
    try:
        request = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise FrameError(f"the handshake is not JSON: {error}") from None
    versions = request.get("supported_versions") if isinstance(request, dict) else None
    if not isinstance(versions, list):
        raise FrameError("the handshake has no list of supported_versions")
    refused = refusal(versions)
    answer = {
        "protocol_version": PROTOCOL_VERSION,
        "success": refused is None,
        "error": refused,
        # Always allowed; MessagePack may only be chosen when it is offered.
        "encoding": "json",
        "capabilities": CAPABILITIES,
    }
    return orjson.dumps(answer), refused


def refusal(versions: list[Any]) -> str | None:
    """Why a proxy that speaks these versions is refused; None: it is not."""
    if PROTOCOL_VERSION in versions:
        return None
    # What stands in the list can be long, or nested deeper than Python writes.
    spoken = [version for version in versions if type(version) is int][:_SHOWN]
    return f"no common version: this agent speaks {PROTOCOL_VERSION}, the proxy {spoken}"
