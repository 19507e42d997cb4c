"""The Unix socket: taken safely, given back on the way out."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from sentinel_wasm.errors import SocketError

MODE = 0o660
_BACKLOG = 512


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`; a stale one there is replaced.

    Raises SocketError where the path is taken by a live agent or by something that is no socket (left
    untouched), or cannot be made.
    """
    _make_way(path)
    listener = socket.socket(socket.AF_UNIX)
    # The mode must hold from the moment the file exists: bind makes it under the umask.
    umask = os.umask(0o777 & ~MODE)
    try:
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise SocketError(f"cannot listen on {path}: {_reason(error)}") from None
    finally:
        os.umask(umask)
    listener.setblocking(False)
    return listener


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


def _make_way(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"cannot use {path}: {_reason(error)}") from None
    if not stat.S_ISSOCK(mode):
        raise SocketError(f"{path} exists and is not a socket; it is left as it is, choose another --socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise SocketError(f"cannot tell whether {path} is in use: {_reason(error)}") from None
    raise SocketError(f"another agent is listening on {path}; stop it or choose another --socket")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
