"""Connections that outlive a crash and a restart: systemd keeps a duplicate of each in its descriptor store.

What the next start must know stands in the names (ASCII, no colon, at most 255): `v2-…` once v2's handshake
is done, `m2-…` where that has agreed on MessagePack, else `v0-…`, from which a v1 connection goes on too. One
of --connect has the path of the proxy's socket behind that, in hexadecimal. `rest-…` is a file with the bytes
of an unfinished frame, which only an orderly stop can leave; `configured`, what the proxy's last Configure
said.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterable

from sentinel_wasm.protocol.events import Configure
from sentinel_wasm.protocol.handshake import Encoding
from sentinel_wasm.server import systemd
from sentinel_wasm.server.handover import Carried, State, read_configured
from sentinel_wasm.server.nameless import nameless

_CONFIGURED = "configured"
_SHAKEN: dict[str, Encoding] = {"v2-": "json", "m2-": "msgpack"}
_FRESH, _REST = "v0-", "rest-"
# For so long, what waits may have waited: nobody knows when the last process ended.
_UNKNOWN_NS = 60_000_000_000


class Store:
    """What systemd keeps of this process. Without a store of systemd's, nothing."""

    def __init__(self) -> None:
        try:
            most = int(os.environ.get("FDSTORE", "0"))
        except ValueError:
            most = 0
        # One for the configuration, and two for each connection when this process ends.
        self._most = max(most - 1, 0) // 2
        self._kept: set[str] = set()

    def keep(self, descriptor: int, kept_as: str, agreed: Encoding | None, proxy: str = "") -> str:
        """Have a connection kept, whose name so far was `kept_as`, and whose handshake has `agreed` on that;
        `proxy` as `State` has it.

        Gives its name now; "": it is not kept.
        """
        prefix = next((prefix for prefix, encoding in _SHAKEN.items() if encoding == agreed), _FRESH)
        if kept_as.startswith(prefix):
            self._kept.add(kept_as)
            return kept_as
        if kept_as:
            self.drop(kept_as)
        if len(self._kept) >= self._most:
            return ""
        name = f"{prefix}{secrets.token_hex(8)}"
        if proxy:
            name += f"-{os.fsencode(proxy).hex()}"
        _put(name, descriptor)
        self._kept.add(name)
        return name

    def drop(self, kept_as: str) -> None:
        """The connection is closed."""
        self._kept.discard(kept_as)
        _remove(kept_as)

    def keep_rest(self, kept_as: str, unread: bytes) -> None:
        """This process ends, and has these bytes of a connection's unfinished frame."""
        if unread:
            _put_file(f"{_REST}{kept_as}", unread)

    def keep_configured(self, configured: Configure) -> None:
        """What the module was given by a proxy last."""
        if self._most:
            _remove(_CONFIGURED)
            _put_file(_CONFIGURED, json.dumps(configured._asdict()).encode())


def kept(given: Iterable[systemd.Given]) -> list[Carried]:
    """The connections among the descriptors that this process was started with; all of these are used up."""
    sockets: dict[str, socket.socket] = {}
    rests: dict[str, bytes] = {}
    configured = None
    for name, descriptor in given:
        if name.startswith((*_SHAKEN, _FRESH)) and name not in sockets:
            sockets[name] = socket.socket(fileno=descriptor)
        else:
            data = _read(descriptor)
            if name == _CONFIGURED:
                configured = read_configured(json.loads(data))
            elif name.startswith(_REST):
                rests[name.removeprefix(_REST)] = data
                _remove(name)
    before_ns = time.monotonic_ns() - _UNKNOWN_NS
    carried = []
    for name, sock in sockets.items():
        agreed = _SHAKEN.get(name[: len(_FRESH)])
        unread = rests.get(name, b"")
        proxy = os.fsdecode(bytes.fromhex("".join(name.split("-")[2:])))
        state = State(
            2 if agreed else 0, agreed is not None, before_ns, unread, name, agreed or "json", proxy
        )
        carried.append(Carried(sock, state, configured))
    return carried


def _read(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        if not file.seekable():
            return b""
        file.seek(0)
        return file.read()


def _put(name: str, descriptor: int) -> None:
    systemd.notify("FDSTORE=1", f"FDNAME={name}", descriptors=(descriptor,))


def _put_file(name: str, data: bytes) -> None:
    with os.fdopen(nameless(name), "wb") as file:
        file.write(data)
        file.flush()
        _put(name, file.fileno())


def _remove(name: str) -> None:
    systemd.notify("FDSTOREREMOVE=1", f"FDNAME={name}")
