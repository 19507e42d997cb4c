"""What a supervisor and one of its workers say to each other.

Orders go down a socket: how to start, then connections, questions for metrics and for what the page shows,
what to reload, how much to log, and to give all connections to another process; where it ends, the worker
drains and ends. Reports come up a pipe; where it ends, the worker is gone. One socket for both would not do:
where a peer dies without having read everything, libuv gives the socket up instead of calling its reader.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import socket
from enum import Enum
from typing import Any, Final, Literal, NamedTuple

from sentinel_wasm.guest.failures import Health
from sentinel_wasm.metrics import Samples
from sentinel_wasm.server import handover
from sentinel_wasm.server.compiling import Checked
from sentinel_wasm.server.handover import Carried
from sentinel_wasm.server.nameless import nameless
from sentinel_wasm.settings import MOST_MODULES, Wanted

# Reports, a byte each, but for SAMPLES, KEPT_OLD and LOST, behind which a length (LONG_HEAD bytes in all) and
# JSON follow. What follows FAILED, to the end, is the reason; it comes before READY only.
READY = b"r"
FAILED = b"!"
TAKEN = b"t"
DROPPED = b"-"  # no descriptor was left for it
CLOSED = b"c"
LOST = b"x"  # a connection of --connect: its path, and for how many seconds it was open
HEALTH: dict[Health, bytes] = {"healthy": b"h", "degraded": b"d", "unhealthy": b"u"}
GIVEN = b"g"
KEPT = b"k"  # the other process is gone
SAMPLES = b"s"
RELOADED = b"n"
KEPT_OLD = b"o"  # the reload failed; its JSON is why
LONG_HEAD = 5
# As SAMPLES, but what follows is the length of JSON (LONG_HEAD - 1 bytes), that JSON, and events' bytes.
SEEN = b"l"

_ASK = b"?"
_LOOK = b"v"
RELOAD = b"n"


class Start(NamedTuple):
    """The first order; `modules` are their bytes."""

    worker: int
    wanted: Wanted
    modules: list[bytes]
    is_debug: bool


class Reload(NamedTuple):
    """The order to exchange the agent; `read_reload` takes the rest of it from this socket."""

    end: socket.socket


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
    """That report: what `Status` says as `about` (with `configs`) and as `entries`."""

    about: dict[str, Any]
    entries: bytes


def orders() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end and the worker's."""
    return socket.socketpair()


def send_start(end: socket.socket, start: Start) -> None:
    """Raises OSError where no descriptor is left for it."""
    _send_pickled(end, b"s", start, [])


def _send_pickled(end: socket.socket, order: bytes, what: object, descriptors: list[int]) -> None:
    # In a file without a name: it may be larger than a message.
    with os.fdopen(nameless("order"), "wb") as file:
        pickle.dump(what, file)
        file.flush()
        socket.send_fds(end, [order], [file.fileno(), *descriptors])


def _read_pickled(descriptor: int) -> Any:
    """Closes it."""
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        # From the process that started this one, which nobody else can write to.
        return pickle.load(file)  # noqa: S301


def receive_start(end: socket.socket) -> Start:
    """Raises EOFError where the supervisor is gone."""
    data, descriptors, _ = handover.receive_descriptors(end, 1)
    if not data:
        raise EOFError
    start: Start = _read_pickled(descriptors[0])
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


def send_reload(end: socket.socket, wanted: Wanted, checked: list[Checked]) -> None:
    """Raises OSError as `send_give_all`, or where no descriptor is left for it."""
    ours, theirs = orders()
    with ours, theirs:
        _send_pickled(ours, RELOAD, (wanted, checked), [one.artefact for one in checked])
        handover.send(end, RELOAD, {}, theirs.fileno())


def read_reload(order: Reload) -> tuple[Wanted, list[Checked]]:
    """Takes as long as the modules are large. Who has it closes their artefacts. Raises OSError."""
    with order.end:
        _, descriptors, flags = handover.receive_descriptors(order.end, 1 + MOST_MODULES)
    if flags & socket.MSG_CTRUNC:
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    wanted, checked = _read_pickled(descriptors[0])
    artefacts = zip(checked, descriptors[1:], strict=True)
    return wanted, [one._replace(artefact=artefact) for one, artefact in artefacts]


def receive_order(
    end: socket.socket,
) -> Carried | GiveAll | Look | Reload | Literal[_Asked.ASKED] | Debug | None:
    """None where orders end. Raises BlockingIOError, and handover.Lost where a descriptor finds no room."""
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
    if message.kind == RELOAD:
        return Reload(message.sockets[0])
    return handover.read_connection(message)


def long_report(kind: bytes, what: Samples | str | tuple[str, float]) -> bytes:
    data = json.dumps(what).encode()
    return kind + len(data).to_bytes(LONG_HEAD - 1, "little") + data


def read_long(said: bytearray) -> tuple[Any, int] | None:
    """What the report that comes first says, and how many bytes it has; None: they are not all here yet."""
    data = _data(said)
    return None if data is None else (json.loads(data), LONG_HEAD + len(data))


def _data(said: bytearray) -> bytes | None:
    """Of the report that comes first; None: it is not all here yet."""
    size = LONG_HEAD + int.from_bytes(said[1:LONG_HEAD], "little")
    return None if len(said) < size else bytes(said[LONG_HEAD:size])


def seen_report(seen: Seen) -> bytes:
    about = json.dumps(seen.about).encode()
    data = len(about).to_bytes(LONG_HEAD - 1, "little") + about + seen.entries
    return SEEN + len(data).to_bytes(LONG_HEAD - 1, "little") + data


def read_seen(said: bytearray) -> tuple[Seen, int] | None:
    """As `read_long`."""
    data = _data(said)
    if data is None:
        return None
    start = LONG_HEAD - 1
    end = start + int.from_bytes(data[:start], "little")
    return Seen(json.loads(data[start:end]), data[end:]), LONG_HEAD + len(data)
