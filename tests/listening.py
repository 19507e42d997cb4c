"""A proxy that listens for agents.

No published build of a proxy starts such a listener (agent-protocol.md, section 5; zentinel 0.6.45 has no
option for it), so this one is made of the facts that the section has.
"""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson

from sentinel_wasm.client import event_v2
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameReader, FrameType, encode_v2

if TYPE_CHECKING:
    from typing_extensions import Self

WELCOME = {
    "success": True,
    "error": None,
    "proxy_id": "zentinel-proxy",
    "proxy_version": "0.6.45",
    "connection_id": "sentinel-wasm-agent-19a",
}


def answer_of(said: object) -> bytes:
    return encode_v2(FrameType.HANDSHAKE_RESPONSE, orjson.dumps(said))


class Registering:
    """An agent that has connected. `request` is its registration."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.frames = FrameReader(2)
        sock.settimeout(10)
        self.request = orjson.loads(self.receive())
        assert self.frames.frame_type == FrameType.HANDSHAKE_REQUEST

    def receive(self) -> bytes:
        """The next frame's payload. Raises ConnectionError where the agent has closed."""
        while (payload := self.frames.next_frame()) is None:
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionError("the agent closed the connection")
            self.frames.feed(data)
        return payload

    def welcome(self, *behind: bytes) -> Self:
        self.sock.sendall(b"".join([answer_of(WELCOME), *behind]))
        return self

    def ask(self, kind: EventKind, payload: Any) -> dict[str, Any]:
        self.sock.sendall(event_v2(kind, payload))
        answer: dict[str, Any] = orjson.loads(self.receive())
        assert self.frames.frame_type == FrameType.AGENT_RESPONSE
        return answer

    def close(self) -> None:
        self.sock.close()


class ListeningProxy:
    """Its listening socket; connections are to be closed by who has them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()

    def registering(self, timeout_s: float = 30.0) -> Registering:
        """The next agent. Raises TimeoutError where none comes."""
        self._listener.settimeout(timeout_s)
        return Registering(self._listener.accept()[0])

    def registered(self) -> Registering:
        return self.registering().welcome()

    def close(self) -> None:
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
