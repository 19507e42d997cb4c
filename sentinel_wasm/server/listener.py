"""The Unix socket: taken safely, given back on the way out."""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path

from sentinel_wasm.errors import SocketError

MODE = 0o660
_BACKLOG = 512
_NO_GROUP = 2**32 - 2  # the last number that chown takes
_TAKEN = "stop it, take over from it with --takeover, or choose another --socket"


def listen(
    path: Path,
    mode: int = MODE,
    group: str | None = None,
    *,
    taken: str = _TAKEN,
) -> socket.socket:
    """A listening socket at `path`; a stale one there is replaced. `group`: None for the process's own.
    `taken` is what to do where somebody listens there.

    Raises SocketError where the path is taken by a live agent or by something that is no socket (left
    untouched), or cannot be made.
    """
    group_id = None if group is None else _group_id(group)
    _make_way(path, taken)
    listener = socket.socket(socket.AF_UNIX)
    # The mode must hold from the moment the file exists: bind makes it under the umask.
    umask = os.umask(0o777 & ~mode)
    try:
        listener.bind(str(path))
        if group_id is not None:
            _give_to(group_id, path)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise SocketError(f"cannot listen on {path}: {_reason(error)}") from None
    except SocketError:
        listener.close()
        path.unlink()
        raise
    finally:
        os.umask(umask)
    listener.setblocking(False)
    return listener


def _give_to(group_id: int, path: Path) -> None:
    try:
        os.chown(path, -1, group_id, follow_symlinks=False)
    except OSError as error:
        raise SocketError(
            f"cannot give {path} to the group of --socket-group, {group_id}: {_reason(error)};"
            " the agent's user must be a member of it"
        ) from None


def _group_id(group: str) -> int:
    if group.isascii() and group.isdecimal():
        return min(int(group), _NO_GROUP)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise SocketError(
            f"there is no group {group!r} for --socket-group: make it with groupadd, or name another"
        ) from None


def unlink(path: Path, ours: tuple[int, int]) -> None:
    """Remove the socket file, unless another agent has put its own there."""
    try:
        if identity(path) == ours:
            path.unlink()
    except FileNotFoundError:
        pass


def identity(path: Path) -> tuple[int, int]:
    """What tells this file from a later one at the same path."""
    found = path.lstat()
    return found.st_dev, found.st_ino


def _make_way(path: Path, taken: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"cannot use {path}: {_reason(error)}") from None
    if not stat.S_ISSOCK(mode):
        raise SocketError(f"{path} exists and is not a socket; it is left as it is, choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            _remove_stale(path)
            return
        except OSError as error:
            raise SocketError(f"cannot tell whether {path} is in use: {_reason(error)}") from None
    raise SocketError(f"another agent is listening on {path}; {taken}")


def _remove_stale(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SocketError(
            f"cannot listen on {path}: a socket that was left there cannot be removed: {_reason(error)}"
        ) from None


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
