"""What a process listens on; the next process gets it from this one (`upgrade`)."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import structlog

from sentinel_wasm.errors import SocketError
from sentinel_wasm.server import admin, listener, store, systemd
from sentinel_wasm.server.handover import Carried
from sentinel_wasm.settings import Settings

if TYPE_CHECKING:
    from typing_extensions import Self

_log = structlog.stdlib.get_logger("server")

_CONTROL_MODE = 0o600
_NAME = "agent"  # FileDescriptorName= of the agent's own, where systemd gives several


def control_path(path: Path) -> Path:
    """Where a new process asks for the sockets and connections of the agent at `path`."""
    return path.with_name(f"{path.name}.takeover")


class Sockets:
    """Closed at the end, and their files removed, but for those that another process has then.

    `control` and `admin` may be None. `are_shared`: another process listens on them too.
    """

    def __init__(
        self,
        agent: socket.socket,
        control: socket.socket | None,
        admin: socket.socket | None,
        files: dict[str, tuple[int, int]],
        kept: list[Carried] | None = None,
    ) -> None:
        """`files`: the paths that are to be removed at the end, with their `listener.identity`. `kept`: the
        connections that an earlier process has left to systemd.
        """
        self.agent = agent
        self.control = control
        self.admin = admin
        self.files = files
        self.kept = kept or []
        self.are_shared = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in (self.agent, self.control, self.admin):
            if sock is not None:
                sock.close()
        if not self.are_shared:
            for path, ours in self.files.items():
                listener.unlink(Path(path), ours)


def open_sockets(settings: Settings) -> Sockets:
    """Raises SocketError where one of the agent's own or --admin's cannot be had."""
    given = systemd.take_descriptors()
    opened_admin = None if settings.admin is None else admin.listen(settings.admin)
    files = {}
    try:
        agent = _activated(given, settings.socket)
        if agent is None:
            agent = listener.listen(settings.socket, int(settings.socket_mode, 8), settings.socket_group)
            files[str(settings.socket.absolute())] = listener.identity(settings.socket)
    except SocketError:
        if opened_admin is not None:
            opened_admin.close()
        raise
    path = control_path(settings.socket)
    control = None
    try:
        control = listener.listen(path, _CONTROL_MODE)
        files[str(path.absolute())] = listener.identity(path)
    except SocketError as error:
        _log.warning("this agent cannot be upgraded in place", reason=str(error))
    kept = store.kept(one for one in given if not _listens(one.descriptor))
    return Sockets(agent, control, opened_admin, files, kept)


def _activated(given: list[systemd.Given], path: Path) -> socket.socket | None:
    """The listening socket that systemd has opened for this process; its file is not ours to remove.

    Raises SocketError where it is another than the agent's.
    """
    listening = [one for one in given if _listens(one.descriptor)]
    if not listening:
        return None
    listening.sort(key=lambda one: one.name != _NAME)
    sock, *others = [socket.socket(fileno=one.descriptor) for one in listening]
    for other in others:
        other.close()
    where = sock.getsockname()
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM or where != str(path.absolute()):
        sock.close()
        raise SocketError(
            f"systemd gives a socket at {where!r}, and --socket is {path}: make it the same as ListenStream="
        )
    sock.setblocking(False)
    return sock


def _listens(descriptor: int) -> bool:
    try:
        # Looked at through a duplicate: the object would close it.
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False  # a file
