"""The admin endpoint: metrics and health over HTTP, small and bounded."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from http import HTTPStatus
from typing import NamedTuple, Protocol

import structlog

from sentinel_wasm.errors import SocketError
from sentinel_wasm.metrics import CONTENT_TYPE
from sentinel_wasm.settings import Address

_MOST_BYTES = 8192  # of a request
_MOST_CONNECTIONS = 64
_PATIENCE_S = 5.0  # for a request and its answer
_SHOWN = 500  # characters of a reason
_PLAIN = "text/plain; charset=utf-8"
_END = b"\r\n\r\n"

# A page elsewhere may make a browser here ask under a name of its own (DNS rebinding): that is refused.
_LOCAL_HOST = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:\d*)?", re.IGNORECASE)

_log = structlog.stdlib.get_logger("admin")


class Source(Protocol):
    """What is said of the agent."""

    async def metrics(self) -> bytes:
        """The page for Prometheus."""

    def why_not_ready(self) -> str | None:
        """None: the module serves."""


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


class _Answer(NamedTuple):
    status: HTTPStatus
    body: bytes
    kind: str = _PLAIN


class _Admin:
    """One request a connection, so many at once."""

    def __init__(self, source: Source, *, is_local: bool) -> None:
        """`is_local`: only this machine is listened to, and only under its own names."""
        self._source = source
        self._is_local = is_local
        self._open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= _MOST_CONNECTIONS:
            writer.transport.abort()
            return
        self._open += 1
        try:
            await asyncio.wait_for(self._converse(reader, writer), _PATIENCE_S)
        except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            pass  # gone, too slow or too much: closed without a word
        except Exception as defect:
            _log.error("internal error, please report it", exc_info=defect)
        finally:
            self._open -= 1
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(_END)
        answer = await self._answer(head)
        allow = "Allow: GET\r\n" if answer.status == HTTPStatus.METHOD_NOT_ALLOWED else ""
        writer.write(
            f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
            f"Content-Type: {answer.kind}\r\nContent-Length: {len(answer.body)}\r\n"
            f"{allow}Connection: close\r\n\r\n".encode()
            + answer.body
        )
        writer.close()
        await writer.wait_closed()

    async def _answer(self, head: bytes) -> _Answer:
        line, *fields = head.removesuffix(_END).split(b"\r\n")
        words = line.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _says(HTTPStatus.BAD_REQUEST)
        if self._is_local and not _is_for_us(fields):
            return _says(HTTPStatus.FORBIDDEN, "the Host header is not localhost, 127.0.0.1 or [::1]")
        if words[0] != b"GET":
            return _says(HTTPStatus.METHOD_NOT_ALLOWED)
        path = words[1].partition(b"?")[0]
        if path == b"/metrics":
            return _Answer(HTTPStatus.OK, await self._source.metrics(), CONTENT_TYPE)
        if path == b"/healthz":
            return _says(HTTPStatus.OK, "ok")
        if path == b"/readyz":
            reason = self._source.why_not_ready()
            if reason is None:
                return _says(HTTPStatus.OK, "ready")
            return _says(HTTPStatus.SERVICE_UNAVAILABLE, reason)
        return _says(HTTPStatus.NOT_FOUND)


def _is_for_us(fields: list[bytes]) -> bool:
    named = (field.partition(b":") for field in fields)
    hosts = [value.strip() for name, _, value in named if name.lower() == b"host"]
    return len(hosts) == 1 and _LOCAL_HOST.fullmatch(hosts[0]) is not None


def _says(status: HTTPStatus, reason: str = "") -> _Answer:
    """One line: a reason may have a module's own words in it."""
    words = " ".join((reason or status.phrase).split())[:_SHOWN]
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)
    return _Answer(status, f"{line}\n".encode(errors="backslashreplace"))
