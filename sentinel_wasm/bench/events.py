"""Requests as the frames that a proxy would send, each but for its correlation id."""

from __future__ import annotations

from typing import Any

from sentinel_wasm import base64
from sentinel_wasm.api import checked
from sentinel_wasm.client import event_v1, event_v2, request_headers
from sentinel_wasm.protocol.events import EventKind

ID_LENGTH = 11  # as of the proxies' own
_PLACE = "iuKtfzn2R7A"

Request = list[tuple[str, dict[str, Any]]]
"""A request: hooks, and what they are asked (docs/toolkit.md), a body behind its headers."""

Frame = tuple[bytes, ...]
"""What stands between the places of the correlation id: `id.join(frame)` is what goes out."""

TYPICAL: list[Request] = [
    [
        (
            "on_request_headers",
            {
                "uri": "/api/users?page=1",
                "client_ip": "192.0.2.100",
                "headers": {
                    "host": "api.example.com",
                    "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
                    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                    "accept-language": "en-US,en;q=0.5",
                    "accept-encoding": "gzip, deflate, br",
                    "cookie": "session=0123456789abcdef0123456789abcdef; theme=dark; lang=en",
                    "referer": "https://www.example.com/products/list?page=2",
                    "sec-fetch-dest": "document",
                    "sec-fetch-mode": "navigate",
                    "sec-fetch-site": "same-origin",
                    "x-forwarded-for": "203.0.113.7",
                    "x-forwarded-proto": "https",
                },
            },
        )
    ]
]


def frames(request: Request, protocol: int) -> list[Frame]:
    """Of one request, in their order. Raises UserError where it is none."""
    return [_frame(hook, checked(hook, event), protocol) for hook, event in request]


def _frame(hook: str, event: dict[str, Any], protocol: int) -> Frame:
    if hook == "on_request_headers":
        kind = EventKind.REQUEST_HEADERS
        payload = request_headers(_PLACE, event["method"], event["uri"], event["headers"], event["client_ip"])
    else:
        kind = EventKind.REQUEST_BODY_CHUNK
        body = event["data"].encode()
        payload = {
            "correlation_id": _PLACE,
            "data": base64.encode(body),
            "is_last": True,
            "total_size": len(body),
            "chunk_index": 0,
            "bytes_received": len(body),
        }
    frame = event_v1(kind, payload) if protocol == 1 else event_v2(kind, payload)
    return tuple(frame.split(_PLACE.encode()))
