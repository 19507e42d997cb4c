"""The start of one of the processes of --workers; what it does then is in `dealt`."""

from __future__ import annotations

import contextlib
import os
import socket
import sys

from sentinel_wasm import logs
from sentinel_wasm.errors import UserError
from sentinel_wasm.server import channel


def main(orders_fd: int, reports_fd: int) -> None:
    """Serve until the orders end. What keeps it from starting is reported, not printed."""
    orders = socket.socket(fileno=orders_fd)
    for descriptor in (orders_fd, reports_fd):
        os.set_inheritable(descriptor, False)
    try:
        start = channel.receive_start(orders)
    except EOFError:
        return
    logs.configure(start.wanted.settings.log_format, worker=start.worker)

    def give_up(reason: str) -> None:
        with contextlib.suppress(OSError):
            os.write(reports_fd, channel.FAILED + reason.encode(errors="backslashreplace"))

    try:
        from sentinel_wasm.server.dealt import serve  # loads wasmtime, which may have another version

        serve(orders, reports_fd, start, give_up)
    except (UserError, ImportError) as error:
        give_up(str(error))
        sys.exit(1)
