"""Events as modules read them: JSON in UTF-8 (guest-abi.md, "What the hooks get" and "Body hooks")."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from sentinel_wasm._strings import json_string
from sentinel_wasm.errors import EventError
from sentinel_wasm.protocol.events import (
    BodyChunk,
    Event,
    GuardrailInspect,
    RequestComplete,
    RequestHeaders,
    ResponseHeaders,
    WebSocketFrame,
)
from sentinel_wasm.settings import HeaderNames, HeaderValues

_KNOWN_NAMES = 4096
_OPENS_WEBSOCKET = re.compile(rb'"upgrade":\[?"[^"]*websocket|^\{"status":101,', re.IGNORECASE)
_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([^:]*):\d+")


def canonical_name(name: str) -> str:
    """`user-agent` → `User-Agent`: ASCII letters only; the first and each after a dash in upper case."""
    out = []
    first = True
    for letter in name:
        if letter.isascii():
            letter = letter.upper() if first else letter.lower()
        out.append(letter)
        first = letter == "-"
    return "".join(out)


def lower_name(name: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


def bare_ip(client_ip: str) -> str:
    """`127.0.0.1:53818` → `127.0.0.1`, `[::1]:53818` → `::1`; anything else as it is."""
    match = _PORT.fullmatch(client_ip)
    if match is None:
        return client_ip
    return match[1] if match[1] is not None else match[2]


_NAME_FORMS: dict[HeaderNames, Callable[[str], str]] = {
    "canonical": canonical_name,
    "lower": lower_name,
    "as-is": str,
}


class InputWriter:
    """Writes the hooks' inputs under the two options that shape headers."""

    def __init__(self, names: HeaderNames, values: HeaderValues) -> None:
        self._form = _NAME_FORMS[names]
        self._list = values == "list"
        # What clients send is theirs to choose, so the memory of it is bounded.
        self._names: dict[str, str] = {}

    def event(self, event: Event) -> bytes:
        """Any event that a hook is for. Raises EventError."""
        if isinstance(event, RequestHeaders):
            return self.request_headers(
                event.method, event.uri, event.client_ip, event.correlation_id, event.headers
            )
        if isinstance(event, ResponseHeaders):
            return self.response_headers(event.status, event.correlation_id, event.headers)
        if isinstance(event, RequestComplete):
            return request_complete(event.fields)
        if isinstance(event, WebSocketFrame):
            return websocket_frame(**event._asdict())
        if isinstance(event, GuardrailInspect):
            return guardrail(event._asdict())
        assert isinstance(event, BodyChunk)
        return body_chunk(**event._asdict())

    def request_headers(
        self, method: str, uri: str, client_ip: str, correlation_id: str, headers: dict[str, Any]
    ) -> bytes:
        return orjson.dumps(
            {
                "method": method,
                "uri": uri,
                "client_ip": bare_ip(client_ip),
                "correlation_id": correlation_id,
                "headers": self.fold(headers),
            }
        )

    def response_headers(self, status: int, correlation_id: str, headers: dict[str, Any]) -> bytes:
        return orjson.dumps(
            {"status": status, "correlation_id": correlation_id, "headers": self.fold(headers)}
        )

    def fold(self, headers: dict[str, Any]) -> dict[str, str] | dict[str, list[str]]:
        """Headers under the names the module expects, pseudo-headers left out.

        Raises EventError where a value is not an array of strings.
        """
        folded: dict[str, list[str]] = {}
        for name, values in headers.items():
            if type(values) is not list or not {str}.issuperset(map(type, values)):
                raise EventError(f"headers: the value of {name[:60]!r} is not an array of strings")
            if name.startswith(":"):
                continue
            form = self._names.get(name) or self._learn(name)
            if form in folded:
                folded[form] += values
            else:
                folded[form] = values.copy()  # the event's own list stays as it is
        if self._list:
            return folded
        return {
            name: values[0] if len(values) == 1 else _join(name, values) for name, values in folded.items()
        }

    def _learn(self, name: str) -> str:
        if len(self._names) >= _KNOWN_NAMES:
            self._names.clear()
        form = self._names[name] = self._form(name)
        return form


def _join(name: str, values: list[str]) -> str:
    # RFC 9113, section 8.2.3: Cookie is the one field whose values are joined with a semicolon.
    return ("; " if lower_name(name) == "cookie" else ", ").join(values)


def body_chunk(
    correlation_id: str,
    data: bytes,
    text: str,
    *,
    is_last: bool,
    total_size: int | None,
    chunk_index: int,
    bytes_seen: int,
) -> bytes:
    """`text` is the base64 in which the data came."""
    return orjson.dumps(
        {
            "correlation_id": correlation_id,
            "chunk_index": chunk_index,
            "is_last": is_last,
            "total_size": total_size,
            "bytes_seen": bytes_seen,
            **_content(data, text),
        }
    )


def websocket_frame(
    correlation_id: str,
    opcode: str,
    data: bytes,
    text: str,
    *,
    client_to_server: bool,
    frame_index: int,
    fin: bool,
    route_id: str | None,
    client_ip: str,
) -> bytes:
    """`text` is the base64 in which the data came."""
    return orjson.dumps(
        {
            "correlation_id": correlation_id,
            "opcode": opcode,
            "client_to_server": client_to_server,
            "frame_index": frame_index,
            "fin": fin,
            "route_id": route_id,
            "client_ip": bare_ip(client_ip),
            **_content(data, text),
        }
    )


def _content(data: bytes, text: str) -> dict[str, str | orjson.Fragment]:
    """Data as text where it is valid UTF-8, else as the base64 (`text`) in which it came."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return {"encoding": "base64", "data": text}
    return {"encoding": "utf-8", "data": orjson.Fragment(json_string(data))}


def opens_websocket(header_event: bytes) -> bool:
    """Whether a request asks to become a WebSocket, or a response agrees; at worst it only seems so."""
    return _OPENS_WEBSOCKET.search(header_event) is not None


def guardrail(fields: dict[str, Any]) -> bytes:
    return orjson.dumps(fields)


def request_complete(fields: dict[str, Any]) -> bytes:
    return orjson.dumps(fields)


def configure(config: Any) -> bytes:
    """`on_configure`'s input; null is the empty configuration, and equal ones have equal bytes.

    Raises EventError where it is nested deeper than orjson goes.
    """
    try:
        return orjson.dumps({"config": {} if config is None else config}, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise EventError(f"the configuration cannot be passed on: {error}") from None


def configuration_in(data: bytes) -> str:
    """What `configure` made this of, as JSON."""
    return data.removeprefix(b'{"config":').removesuffix(b"}").decode()
