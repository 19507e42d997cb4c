"""What a supervisor and one of its workers say to each other.

Orders go down a socket: how to start, then connections, questions for metrics, how much to log, and to give
all connections to another process; where it ends, the worker drains and ends. Reports come up a pipe; where
it ends, the worker is gone. One socket for both would not do: where a peer dies without having read
everything, libuv gives the socket up instead of calling its reader.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
from enum import Enum
from typing import Any, Final, Literal, NamedTuple

from sentinel_wasm.guest.failures import Health
from sentinel_wasm.metrics import Samples
from sentinel_wasm.server import handover
from sentinel_wasm.server.handover import Carried
from sentinel_wasm.settings import Settings

# Reports, a byte each, but for SAMPLES, behind which length (SAMPLES_HEAD bytes in all) and JSON follow. What
# follows FAILED, to the end, is the reason; it comes before READY only.
READY = b"r"
FAILED = b"!"
TAKEN = b"t"
CLOSED = b"c"
HEALTH: dict[Health, bytes] = {"healthy": b"h", "degraded": b"d", "unhealthy": b"u"}
GIVEN = b"g"
KEPT = b"k"  # the other process is gone
SAMPLES = b"s"
SAMPLES_HEAD = 5
# As SAMPLES, but what follows is the length of JSON (SAMPLES_HEAD - 1 bytes), that JSON, and events' bytes.
SEEN = b"l"

_ASK = b"?"
_LOOK = b"v"


class Start(NamedTuple):
    """The first order."""

    worker: int
    settings: Settings
    header_names_given: bool
    is_debug: bool


class GiveAll(NamedTuple):
    """The order to give all connections to another process, over this socket."""

    end: socket.socket


class _Asked(Enum):
    ASKED = 0


ASKED: Final = _Asked.ASKED
"""The order to report the worker's metrics."""


class Debug(Enum):
    """The order to log debug lines and every decision, or not."""

    ON = b"+"
    OFF = b"-"


class Look(NamedTuple):
    """The order to report what the page shows: with the last events, those behind this number."""

    since: int


class Seen(NamedTuple):
    """That report: what `Status` says as `about` (with the module's `config`) and as `entries`."""

    about: dict[str, Any]
    entries: bytes


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


def send_give_all(end: socket.socket, to: socket.socket) -> None:
    """Raises OSError where the worker is gone or has too much to take."""
    handover.send(end, handover.GIVER, {}, to.fileno())


def ask(end: socket.socket) -> None:
    """Raises OSError as `send_give_all`."""
    end.send(_ASK)


def send_debug(end: socket.socket, on: bool) -> None:
    """Raises OSError as `send_give_all`."""
    end.send((Debug.ON if on else Debug.OFF).value)


def look(end: socket.socket, since: int) -> None:
    """Raises OSError as `send_give_all`."""
    handover.send(end, _LOOK, {"since": since})


def receive_order(end: socket.socket) -> Carried | GiveAll | Look | Literal[_Asked.ASKED] | Debug | None:
    """None where orders end. Raises BlockingIOError, and OSError where a connection finds no descriptor."""
    message = handover.receive(end)
    if message is None:
        return None
    if message.kind == _ASK:
        return ASKED
    if message.kind in (Debug.ON.value, Debug.OFF.value):
        return Debug(message.kind)
    if message.kind == _LOOK:
        return Look(message.says["since"])
    if message.kind == handover.GIVER:
        return GiveAll(message.sockets[0])
    return handover.read_connection(message)


def samples_report(samples: Samples) -> bytes:
    data = json.dumps(samples).encode()
    return SAMPLES + len(data).to_bytes(SAMPLES_HEAD - 1, "little") + data


def read_samples(said: bytearray) -> tuple[Samples, int] | None:
    """The metrics that reports begin with, and how many bytes they are; None: they are not all here yet."""
    size = SAMPLES_HEAD + int.from_bytes(said[1:SAMPLES_HEAD], "little")
    if len(said) < SAMPLES_HEAD or len(said) < size:
        return None
    samples: Samples = json.loads(said[SAMPLES_HEAD:size])
    return samples, size


def seen_report(seen: Seen) -> bytes:
    about = json.dumps(seen.about).encode()
    data = len(about).to_bytes(SAMPLES_HEAD - 1, "little") + about + seen.entries
    return SEEN + len(data).to_bytes(SAMPLES_HEAD - 1, "little") + data


def read_seen(said: bytearray) -> tuple[Seen, int] | None:
    """As `read_samples`."""
    size = SAMPLES_HEAD + int.from_bytes(said[1:SAMPLES_HEAD], "little")
    if len(said) < SAMPLES_HEAD or len(said) < size:
        return None
    start = 2 * SAMPLES_HEAD - 1
    end = start + int.from_bytes(said[SAMPLES_HEAD:start], "little")
    return Seen(json.loads(said[start:end]), bytes(said[end:size])), size
