"""The proxy's side of the protocol, blocking: for tests and tools. Not for the agent itself."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson

from sentinel_wasm.errors import ProtocolError
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameReader, FrameType, encode_v1, encode_v2
from sentinel_wasm.protocol.handshake import Encoding

if TYPE_CHECKING:
    from typing_extensions import Self

_TYPE_OF_KIND = {
    EventKind.CONFIGURE: FrameType.CONFIGURE,
    EventKind.REQUEST_HEADERS: FrameType.REQUEST_HEADERS,
    EventKind.REQUEST_BODY_CHUNK: FrameType.REQUEST_BODY_CHUNK,
    EventKind.RESPONSE_HEADERS: FrameType.RESPONSE_HEADERS,
    EventKind.RESPONSE_BODY_CHUNK: FrameType.RESPONSE_BODY_CHUNK,
    EventKind.REQUEST_COMPLETE: FrameType.REQUEST_COMPLETE,
    EventKind.WEBSOCKET_FRAME: FrameType.WEBSOCKET_FRAME,
    EventKind.GUARDRAIL_INSPECT: FrameType.GUARDRAIL_INSPECT,
}

_V1_NAMES = {kind: kind.name.lower() for kind in EventKind} | {EventKind.WEBSOCKET_FRAME: "web_socket_frame"}


def request_headers(
    correlation_id: str,
    method: str = "GET",
    uri: str = "/",
    headers: dict[str, list[str]] | None = None,
    client_ip: str = "127.0.0.1:40000",
) -> dict[str, Any]:
    """A request_headers payload as proxies send it, for either version."""
    return {
        "correlation_id": correlation_id,
        "headers": headers or {},
        "metadata": {
            "client_ip": client_ip,
            "client_port": 0,
            "correlation_id": correlation_id,
            "protocol": "HTTP/1.1",
            "request_id": correlation_id,
            "route_id": "default",
            "server_name": None,
            "timestamp": "2026-01-01T00:00:00+00:00",
            "tls_cipher": None,
            "tls_version": None,
            "upstream_id": None,
        },
        "method": method,
        "uri": uri,
    }


def event_v1(kind: EventKind, payload: Any, *, version: int = 1) -> bytes:
    """An event's frame."""
    request = {"version": version, "event_type": _V1_NAMES[kind], "payload": payload}
    return encode_v1(orjson.dumps(request))


def event_v2(kind: EventKind, payload: Any, encoding: Encoding = "json") -> bytes:
    """The same for v2."""
    return encode_v2(_TYPE_OF_KIND[kind], _dumps(payload, encoding))


def _dumps(payload: Any, encoding: Encoding) -> bytes:
    if encoding == "json":
        return orjson.dumps(payload)
    import msgspec  # as in the agent, only where it is asked for

    return msgspec.msgpack.encode(payload)


def _loads(payload: bytes, encoding: Encoding) -> Any:
    if encoding == "json":
        return orjson.loads(payload)
    import msgspec

    return msgspec.msgpack.decode(payload)


class Client:
    """One connection that reads the frames of one protocol version; what is sent is up to the caller."""

    def __init__(self, path: Path, protocol: int, *, timeout_s: float = 10.0) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout_s)
        try:
            self.sock.connect(str(path))
        except OSError:
            self.sock.close()
            raise
        self._frames = FrameReader(protocol)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def receive(self) -> bytes:
        """The next frame's payload. Raises ConnectionError where the agent has closed."""
        while (payload := self.next_frame()) is None:
            self.read()
        return payload

    def read(self) -> None:
        """Take what has come, or wait for it. Raises ConnectionError where the agent has closed."""
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionError("the agent closed the connection")
        self._frames.feed(data)

    def next_frame(self) -> bytes | None:
        """The payload of the next frame that is here as a whole."""
        return self._frames.next_frame()

    @property
    def frame_type(self) -> int:
        """The type of the frame that was received last."""
        return self._frames.frame_type

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ClientV1(Client):
    """Speaks v1: one request at a time."""

    def __init__(self, path: Path, *, timeout_s: float = 10.0) -> None:
        super().__init__(path, 1, timeout_s=timeout_s)

    def send_event(self, kind: EventKind, payload: Any, *, version: int = 1) -> None:
        self.send(event_v1(kind, payload, version=version))

    def ask(self, kind: EventKind, payload: Any, *, version: int = 1) -> dict[str, Any]:
        self.send_event(kind, payload, version=version)
        answer: dict[str, Any] = orjson.loads(self.receive())
        return answer


class ClientV2(Client):
    """Speaks v2; shakes hands at once. `encoding` is what it offers, and what the agent must take."""

    def __init__(self, path: Path, *, timeout_s: float = 10.0, encoding: Encoding = "json") -> None:
        """Raises ProtocolError where the agent refuses."""
        super().__init__(path, 2, timeout_s=timeout_s)
        self._encoding = encoding
        shake = {
            "supported_versions": [2],
            "proxy_id": "sentinel-wasm-client",
            "proxy_version": "0",
            "config": None,
            "supported_encodings": [encoding],
        }
        try:
            self.send(encode_v2(FrameType.HANDSHAKE_REQUEST, orjson.dumps(shake)))
            self.handshake = _handshake(self.receive(), encoding)
        except BaseException:
            self.close()
            raise

    def send_event(self, kind: EventKind, payload: Any) -> None:
        self.send(event_v2(kind, payload, self._encoding))

    def receive(self) -> bytes:
        """As `Client.receive`, but for metrics, which come at any time."""
        while True:
            payload = super().receive()
            if self.frame_type != FrameType.METRICS_REPORT:
                return payload

    def ask(self, kind: EventKind, payload: Any) -> dict[str, Any]:
        """The answer, without what the agent says of its health before it."""
        self.send_event(kind, payload)
        answer = self.receive()
        while self.frame_type == FrameType.HEALTH_STATUS:
            answer = self.receive()
        asked: dict[str, Any] = _loads(answer, self._encoding)
        return asked


def _handshake(answer: bytes, encoding: Encoding) -> dict[str, Any]:
    """Raises ProtocolError where it is none, or the agent refuses."""
    try:
        said: dict[str, Any] = orjson.loads(answer)
        success, error = said["success"], said.get("error")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ProtocolError(f"what came is no answer to a handshake: {answer!r:.200}") from None
    if not success:
        raise ProtocolError(f"handshake refused: {error}")
    if said.get("encoding", "json") != encoding:
        raise ProtocolError(f"the agent speaks {said['encoding']!r:.60}, which was not offered")
    return said
