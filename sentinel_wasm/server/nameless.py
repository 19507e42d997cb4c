"""Files without a name, in which processes of this agent give each other what a message has no room for."""

from __future__ import annotations

import os
import sys
import tempfile

if sys.platform == "linux":
    import fcntl


def nameless(what: str) -> int:
    """The descriptor of one, in memory where the system has that; `what` is for who looks at descriptors.

    Elsewhere it loses its name before anything is in it, and was our user's alone. Raises OSError.
    """
    if sys.platform == "linux":
        return os.memfd_create(what, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    return descriptor


def seal(descriptor: int) -> None:
    """Nobody can change it any more, where the system knows that."""
    if sys.platform == "linux":
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
