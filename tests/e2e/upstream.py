"""The server behind the proxy: it tells what reached it, and sends bodies that filters care about."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from . import websocket

CARD_BODY = b"paid with 4111-1111-1111-1234, thank you\n"
MASKED_BODY = b"paid with ****-****-****-1234, thank you\n"

# 200 KB, written in pieces of 25 KB; in the second body a card number lies across two of them.
_PIECE = 25_600
LONG_BODY = b"abcdefghijklmno\n" * 12_800
LONG_CARD_BODY = LONG_BODY[: _PIECE - 16] + b"4111-1111-1111-1234" + LONG_BODY[_PIECE + 3 :]
# What a model answers, in pieces.
STREAMED = b"".join(
    b"data: %s\n\n" % json.dumps({"choices": [{"delta": {"content": part}}]}).encode()
    for part in ("write to zoe@exam", "ple.com, 4111 1111 ", "1111 1111")
)

LONG_MASKED_BODY = LONG_CARD_BODY.replace(b"4111-1111-1111", b"****-****-****")


class Upstream:
    """A threaded HTTP server on a free loopback port.

    `/card` answers with a card number, `/held` too but not before `release`, `/long` with 200 KB in
    several writes, `/long-card` likewise with a card number, `/stream` as a model does; everything else
    with a JSON report of the request. A WebSocket's frames come back.
    """

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def paths(self) -> list[str]:
        """The paths of the requests that came in whole."""
        return self._server.paths

    @property
    def bodies(self) -> list[bytes]:
        """The request bodies that came in whole."""
        return self._server.bodies

    def wait_until_held(self) -> None:
        assert self._server.held.wait(10), "no request for /held came"

    def release(self) -> None:
        """Answer the request for `/held`."""
        self._server.released.set()

    def close(self) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.paths: list[str] = []
        self.bodies: list[bytes] = []
        self.held = threading.Event()
        self.released = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a proxy that blocks a body cuts its connection to here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "e2e-upstream"
    server: _Server

    def setup(self) -> None:
        super().setup()
        # Each write is to arrive as a read of its own.
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        self.server.paths.append(self.path)
        if body:
            self.server.bodies.append(body)
        self._answer(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: pytest's output is for failures."""

    def _answer(self, body: bytes) -> None:
        if self.headers.get("Upgrade"):
            self._echo_frames()
        elif self.path == "/card":
            self._send("text/plain", CARD_BODY)
        elif self.path == "/held":
            self.server.held.set()
            self.server.released.wait(10)
            self._send("text/plain", CARD_BODY)
        elif self.path == "/stream":
            self._send("text/event-stream", STREAMED)
        elif self.path == "/long":
            self._send("application/octet-stream", LONG_BODY)
        elif self.path == "/long-card":
            self._send("text/plain", LONG_CARD_BODY)
        else:
            self._send("application/json", self._report(body))

    def _echo_frames(self) -> None:
        """A WebSocket's, until the proxy has enough of it; at `/password`, that is what they say."""
        key = self.headers["Sec-WebSocket-Key"].encode()
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.end_headers()
        self.close_connection = True
        while frame := websocket.read(self.rfile):
            self.server.bodies.append(frame.payload)
            if self.path == "/password":
                frame = frame._replace(payload=b"password")
            self.wfile.write(websocket.written(*frame, mask=False))

    def _report(self, body: bytes) -> bytes:
        report = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": body.decode(),
        }
        return json.dumps(report).encode()

    def _send(self, content_type: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Powered-By", "e2e")
        self.end_headers()
        for start in range(0, len(body), _PIECE):
            self.wfile.write(body[start : start + _PIECE])
            if len(body) > _PIECE:
                time.sleep(0.005)  # lets the proxy read what there is
