"""Live connections from one process to another, in the middle of their streams.

What goes over is said here, and has a version: the processes may be of different releases. A message is one
byte in a Unix socket, which says what it is, with descriptors. The first is a file without a name, which has
room for a connection's unfinished frame; the others are sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import structlog

from sentinel_wasm.protocol.events import Configure
from sentinel_wasm.protocol.handshake import Encoding
from sentinel_wasm.server.nameless import nameless

_log = structlog.stdlib.get_logger("handover")

FORMAT = 2

# What the new process says: who it is, that it accepts now, that it has a connection.
ASK = b"?"
ACCEPTS = b"a"
TAKEN = b"t"
# What the old one says: what it listens on, or why not; a connection; a socket on which one of its workers
# gives its connections; that it gives no more.
LISTENING = b"l"
REFUSED = b"!"
CONNECTION = b"c"
GIVER = b"g"
END = b"e"

_MOST_DESCRIPTORS = 8  # the kernel takes 253


class Lost(OSError):
    """A message of this kind has come without its descriptors."""

    def __init__(self, kind: bytes) -> None:
        super().__init__(errno.EMFILE, os.strerror(errno.EMFILE))
        self.kind = kind


class Message(NamedTuple):
    """`says` is JSON; `unread` has bytes of a connection."""

    kind: bytes
    says: dict[str, Any]
    sockets: list[socket.socket]
    unread: bytes


def send(
    end: socket.socket, kind: bytes, says: dict[str, Any], *descriptors: int, unread: bytes = b""
) -> None:
    """Raises OSError where the other side is gone, as BlockingIOError where it has too much to read."""
    with os.fdopen(nameless("handover"), "wb") as file:
        file.write(json.dumps(says).encode() + b"\n" + unread)
        file.flush()
        socket.send_fds(end, [kind], [file.fileno(), *descriptors])


def receive_descriptors(end: socket.socket, most: int) -> tuple[bytes, list[int], int]:
    """A message's byte (none: the other side is gone), its descriptors and the flags of recvmsg(2).

    Raises OSError.
    """
    kind, descriptors, flags, _ = socket.recv_fds(end, 1, most)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # recv_fds passes no MSG_CMSG_CLOEXEC on, and macOS has none
    return kind, descriptors, flags


def receive(end: socket.socket) -> Message | None:
    """None where the other side is gone. Raises OSError, as BlockingIOError where there is nothing yet."""
    kind, descriptors, flags = receive_descriptors(end, _MOST_DESCRIPTORS)
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors[1:]]
    says, unread = {}, b""
    if descriptors:
        with os.fdopen(descriptors[0], "rb") as file:
            file.seek(0)
            says, unread = json.loads(file.readline()), file.read()
    if flags & socket.MSG_CTRUNC:
        for sock in sockets:
            sock.close()
        raise Lost(kind)
    return Message(kind, says, sockets, unread) if kind else None


async def next_message(end: socket.socket) -> Message | None:
    """As `receive`, of a socket that does not block."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return receive(end)
        except BlockingIOError:
            readable = asyncio.Event()
        except ConnectionError:
            continue  # the other side is gone, but what it had sent before is still to be read
        loop.add_reader(end, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(end)


class State(NamedTuple):
    """What a connection's next process must know to go on in the middle of its stream."""

    protocol: int = 0  # as FrameBuffer has it
    is_shaken: bool = False
    looked_ns: int = 0  # when it was read from last, of time.monotonic_ns (which all processes share)
    unread: bytes = b""  # of the unfinished frame
    kept_as: str = ""  # in systemd's descriptor store; there is none: ""
    encoding: Encoding = "json"
    proxy: str = ""  # of --connect, where this agent registered; it was accepted: ""


class Carried(NamedTuple):
    """A connection on its way. `configured`: what the module of its last process was given by a proxy."""

    sock: socket.socket
    state: State
    configured: Configure | None = None


def accepted(sock: socket.socket) -> Carried:
    """A new connection, on its way to the process that will be its first."""
    return Carried(sock, State(looked_ns=time.monotonic_ns()))


def send_connection(end: socket.socket, carried: Carried) -> None:
    """Raises OSError as `send`."""
    state, configured = carried.state, carried.configured
    says = {
        "protocol": state.protocol,
        "encoding": state.encoding,
        "proxy": state.proxy,
        "handshake_done": state.is_shaken,
        "looked_ns": state.looked_ns,
        "kept_as": state.kept_as,
        "configured": None if configured is None else configured._asdict(),
    }
    send(end, CONNECTION, says, carried.sock.fileno(), unread=state.unread)


def read_connection(message: Message) -> Carried:
    says = message.says
    state = State(
        says["protocol"],
        says["handshake_done"],
        says["looked_ns"],
        message.unread,
        says["kept_as"],
        says["encoding"],
        says["proxy"],
    )
    return Carried(message.sockets[0], state, read_configured(says["configured"]))


def read_configured(says: dict[str, Any] | None) -> Configure | None:
    return None if says is None else Configure(says["correlation_id"], says["config"])


Adopt = Callable[[Carried], Awaitable[None]]


class Taker:
    """Takes the connections that another process gives."""

    def __init__(self, end: socket.socket, adopt: Adopt) -> None:
        """`adopt` gets each of them."""
        self.taken = 0
        self.longest_pause_s = 0.0
        self._end = end
        self._adopt = adopt
        self._loop = asyncio.get_running_loop()

    async def take_all(self) -> None:
        """Until the other side has no more, or is gone. What cannot be taken stays with it."""
        await self._take_from(self._end)

    async def _take_from(self, end: socket.socket) -> None:
        end.setblocking(False)
        workers = []
        with end:
            while (message := await next_message(end)) is not None and message.kind != END:
                if message.kind == GIVER:
                    workers.append(self._loop.create_task(self._take_from(message.sockets[0])))
                elif message.kind == CONNECTION:
                    # Before anything is read of it: until now the other side could go on with it.
                    with contextlib.suppress(OSError):
                        end.send(TAKEN)
                    await self._take(read_connection(message))
            await asyncio.gather(*workers)

    async def _take(self, carried: Carried) -> None:
        try:
            await self._adopt(carried)
        except OSError as error:
            _log.error("a connection was lost", reason=error.strerror)
            return
        self.taken += 1
        pause_s = (time.monotonic_ns() - carried.state.looked_ns) / 1e9
        self.longest_pause_s = max(self.longest_pause_s, pause_s)
