"""The admin endpoint: metrics, health and the page over HTTP, small and bounded."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import orjson
import structlog

from sentinel_wasm.errors import SocketError
from sentinel_wasm.logs import escaped
from sentinel_wasm.metrics import CONTENT_TYPE
from sentinel_wasm.server import page, trial
from sentinel_wasm.settings import Address

_MOST_BYTES = 8192  # of a request's head
_MOST_CONNECTIONS = 64
_PATIENCE_S = 5.0  # for a request, and as much again for its answer where nothing is tried
_SHOWN = 500  # characters of a reason
_PLAIN = "text/plain; charset=utf-8"
_JSON = "application/json"
_END = b"\r\n\r\n"
_SINCE = re.compile(rb"(?:.*&)?since=(\d{1,18})(?:&.*)?", re.DOTALL)

# A page elsewhere may make a browser here ask under a name of its own (DNS rebinding): that is refused.
_LOCAL_HOST = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:\d*)?", re.IGNORECASE)

_log = structlog.stdlib.get_logger("admin")


class Source(Protocol):
    """What is said of the agent."""

    async def metrics(self) -> bytes:
        """The page for Prometheus."""

    def why_not_ready(self) -> str | None:
        """None: the module serves."""

    async def status(self) -> dict[str, Any]:
        """What `/status.json` says (docs/page.md), but for `ready` and `reason`."""

    async def events(self, since: int) -> bytes:
        """What `/events` says: those behind this number."""

    async def loaded(self) -> trial.Loaded | None:
        """What requests are tried on; None: nothing runs yet."""


async def start(sock: socket.socket | None, source: Source) -> asyncio.Server | None:
    """Answer who comes to what `listen` gave, until the server is closed."""
    if sock is None:
        return None
    admin = _Admin(source, is_local=ipaddress.ip_address(sock.getsockname()[0]).is_loopback)
    _log.info("admin endpoint", address=str(Address(*sock.getsockname()[:2])))
    return await asyncio.start_server(admin.serve, sock=sock.dup(), limit=_MOST_BYTES)


def listen(address: Address) -> socket.socket:
    """Raises SocketError where it is taken or there is none such."""
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SocketError(f"cannot listen on --admin {address}: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(_MOST_CONNECTIONS)
    except OSError as error:
        sock.close()
        raise SocketError(f"cannot listen on --admin {address}: {error.strerror}") from None
    sock.setblocking(False)
    return sock


class _Request(NamedTuple):
    method: bytes
    path: bytes
    query: bytes
    fields: dict[bytes, list[bytes]]  # by name in lower case

    def field(self, name: bytes) -> bytes | None:
        """The value of a header that is there once."""
        values = self.fields.get(name, [])
        return values[0] if len(values) == 1 else None


class _Answer(NamedTuple):
    status: HTTPStatus
    body: bytes
    kind: str = _PLAIN
    policy: str = page.NOTHING
    allow: str = ""  # for 405

    def encode(self) -> bytes:
        fields = {
            "Content-Type": self.kind,
            "Content-Length": len(self.body),
            "Cache-Control": "no-store",
            "Content-Security-Policy": self.policy,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            **({"Allow": self.allow} if self.allow else {}),
            "Connection": "close",
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n{head}\r\n".encode() + self.body


class _Refused(Exception):
    """The answer to a request that is not carried out."""

    def __init__(self, status: HTTPStatus, reason: str = "", allow: str = "") -> None:
        self.answer = _says(status, reason)._replace(allow=allow)


class _Admin:
    """One request a connection, so many at once."""

    def __init__(self, source: Source, *, is_local: bool) -> None:
        """`is_local`: only this machine is listened to, and only under its own names."""
        self._source = source
        self._is_local = is_local
        self._open = 0
        self._token = secrets.token_urlsafe(32)
        self._page, self._policy = page.make(self._token)
        self._trials = trial.Trials()
        self._gets: dict[bytes, Callable[[_Request], Awaitable[_Answer]]] = {
            b"/": self._show_page,
            b"/metrics": self._metrics,
            b"/healthz": self._health,
            b"/readyz": self._readiness,
            b"/status.json": self._status,
            b"/events": self._events,
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= _MOST_CONNECTIONS:
            writer.transport.abort()
            return
        self._open += 1
        try:
            await self._converse(reader, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            pass  # gone, too slow or too much: closed without a word
        except Exception as defect:
            _log.error("internal error, please report it", exc_info=defect)
        finally:
            self._open -= 1
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answered(reader)
        except _Refused as refused:
            answer = refused.answer
        writer.write(answer.encode())
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), _PATIENCE_S)

    async def _answered(self, reader: asyncio.StreamReader) -> _Answer:
        """Raises _Refused."""
        head = await asyncio.wait_for(reader.readuntil(_END), _PATIENCE_S)
        request = _read(head)
        if self._is_local and not _LOCAL_HOST.fullmatch(request.field(b"host") or b""):
            raise _Refused(HTTPStatus.FORBIDDEN, "the Host header is not localhost, 127.0.0.1 or [::1]")
        if request.path == b"/try":
            if request.method != b"POST":
                raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, allow="POST")
            self._check_origin(request)
            body = await asyncio.wait_for(reader.readexactly(_body_bytes(request)), _PATIENCE_S)
            return await self._try(body)
        answer = self._gets.get(request.path)
        if request.method != b"GET":
            raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, allow="GET")
        if answer is None:
            raise _Refused(HTTPStatus.NOT_FOUND)
        return await asyncio.wait_for(answer(request), _PATIENCE_S)

    async def _show_page(self, _: _Request) -> _Answer:
        return _Answer(HTTPStatus.OK, self._page, "text/html; charset=utf-8", self._policy)

    async def _metrics(self, _: _Request) -> _Answer:
        return _Answer(HTTPStatus.OK, await self._source.metrics(), CONTENT_TYPE)

    async def _health(self, _: _Request) -> _Answer:
        return _says(HTTPStatus.OK, "ok")

    async def _readiness(self, _: _Request) -> _Answer:
        reason = self._source.why_not_ready()
        if reason is None:
            return _says(HTTPStatus.OK, "ready")
        return _says(HTTPStatus.SERVICE_UNAVAILABLE, reason)

    async def _status(self, _: _Request) -> _Answer:
        status = await self._source.status()
        reason = self._source.why_not_ready()
        return _Answer(
            HTTPStatus.OK,
            orjson.dumps({"ready": reason is None, "reason": reason and _line(reason), **status}),
            _JSON,
        )

    async def _events(self, request: _Request) -> _Answer:
        since = _SINCE.fullmatch(request.query)
        return _Answer(HTTPStatus.OK, await self._source.events(int(since[1]) if since else 0), _JSON)

    def _check_origin(self, request: _Request) -> None:
        """That our own page asks, and no other page in a browser. Raises _Refused."""
        host = request.field(b"host")
        origin = request.field(b"origin")
        if (
            not host
            or not origin
            or origin.lower() not in (b"http://" + host.lower(), b"https://" + host.lower())
        ):
            raise _Refused(HTTPStatus.FORBIDDEN, "the Origin header is not this page's")
        # In bytes: a string that is not ASCII cannot be compared.
        if not hmac.compare_digest(request.field(b"x-token") or b"", self._token.encode()):
            raise _Refused(HTTPStatus.FORBIDDEN, "the token is not this start's: load the page again")

    async def _try(self, body: bytes) -> _Answer:
        try:
            wanted = trial.read_wanted(body)
        except trial.WantedError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from None
        loaded = await self._source.loaded()
        if loaded is None:
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, "no module is loaded yet")
        try:
            return _Answer(HTTPStatus.OK, await self._trials.run(loaded, wanted), _JSON)
        except trial.BusyError:
            raise _Refused(
                HTTPStatus.TOO_MANY_REQUESTS, "another request is being tried: try again in a moment"
            ) from None


def _read(head: bytes) -> _Request:
    """Raises _Refused."""
    line, *lines = head.removesuffix(_END).split(b"\r\n")
    words = line.split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        raise _Refused(HTTPStatus.BAD_REQUEST)
    path, _, query = words[1].partition(b"?")
    fields: dict[bytes, list[bytes]] = {}
    for field in lines:
        name, _, value = field.partition(b":")
        fields.setdefault(name.lower(), []).append(value.strip())
    return _Request(words[0], path, query, fields)


def _body_bytes(request: _Request) -> int:
    """How long the JSON is that follows. Raises _Refused."""
    kind = (request.field(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != _JSON.encode():
        raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the Content-Type is not {_JSON}")
    length = request.field(b"content-length")
    if length is None or not length.isdigit() or b"transfer-encoding" in request.fields:
        raise _Refused(HTTPStatus.LENGTH_REQUIRED)
    if len(length) > 9 or int(length) > trial.MOST_BYTES:
        raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {trial.MOST_BYTES} bytes")
    return int(length)


def _says(status: HTTPStatus, reason: str = "") -> _Answer:
    return _Answer(status, f"{_line(reason or status.phrase)}\n".encode(errors="backslashreplace"))


def _line(reason: str) -> str:
    """One line: a reason may have a module's own words in it."""
    return escaped(" ".join(reason.split())[:_SHOWN])
