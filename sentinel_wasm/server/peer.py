"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import NamedTuple

_UCRED = struct.Struct("3i")  # pid, uid, gid (unix(7), SO_PEERCRED)

# macOS, sys/un.h and sys/ucred.h: version, uid, number of groups, 16 groups.
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2
_XUCRED = struct.Struct("@IIh16I")
_XUCRED_VERSION = 0


class Peer(NamedTuple):
    """A process; `pid` is 0 where it cannot be seen from here."""

    pid: int
    uid: int


def peer_of(sock: socket.socket) -> Peer:
    """Raises OSError."""
    if sys.platform == "darwin":
        version, uid, *_ = _XUCRED.unpack(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size))
        if version != _XUCRED_VERSION:
            raise OSError(errno.EINVAL, "the system tells users in another way")
        return Peer(int.from_bytes(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4), sys.byteorder), uid)
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid, uid)
