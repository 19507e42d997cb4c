"""What a supervisor and one of its workers say to each other.

Orders go down a socket: how to start, then connections; where it ends, the worker drains and ends. Reports
come up a pipe; where it ends, the worker is gone. One socket for both would not do: where a peer dies
without having read everything, libuv gives the socket up instead of calling its reader.
"""

from __future__ import annotations

import os
import pickle
import socket
from typing import NamedTuple

from sentinel_wasm.settings import Settings

# Reports, a byte each. What follows FAILED, to the end, is the reason; it comes before READY only.
READY = b"r"
FAILED = b"!"
TAKEN = b"t"
CLOSED = b"c"


class Start(NamedTuple):
    """The first order."""

    worker: int
    settings: Settings
    header_names_given: bool


class Dealt(NamedTuple):
    """A connection, and when it was accepted, of time.monotonic_ns (which all processes share)."""

    connection: socket.socket
    accepted_ns: int


def orders() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end and the worker's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send_start(end: socket.socket, start: Start) -> None:
    """Raises OSError where no descriptor is left for it."""
    # In a file without a name: a module's configuration may be larger than a message.
    with os.fdopen(os.memfd_create("start"), "wb") as file:
        pickle.dump(start, file)
        file.flush()
        socket.send_fds(end, [b"s"], [file.fileno()])


def receive_start(end: socket.socket) -> Start:
    """Raises EOFError where the supervisor is gone."""
    data, descriptors, _, _ = socket.recv_fds(end, 1, 1, socket.MSG_CMSG_CLOEXEC)
    if not data:
        raise EOFError
    with os.fdopen(descriptors[0], "rb") as file:
        file.seek(0)
        # From the process that started this one, which nobody else can write to.
        start: Start = pickle.load(file)  # noqa: S301
    return start


def send_connection(end: socket.socket, dealt: Dealt) -> None:
    """Raises OSError where the worker is gone or has too much to take."""
    socket.send_fds(end, [dealt.accepted_ns.to_bytes(8, "little")], [dealt.connection.fileno()])


def receive_connection(end: socket.socket) -> Dealt | None:
    """None where orders end. Raises BlockingIOError, and OSError where no descriptor is left for it."""
    data, descriptors, _, _ = socket.recv_fds(end, 8, 1, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    if not descriptors:
        raise OSError("too many open files")
    return Dealt(socket.socket(fileno=descriptors[0]), int.from_bytes(data, "little"))
