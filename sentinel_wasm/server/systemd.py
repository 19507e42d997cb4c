"""The service manager's protocols, sd_notify(3) and sd_listen_fds(3): datagrams, variables and descriptors.

Without its variables, everything here does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple

import structlog

_log = structlog.stdlib.get_logger("systemd")

_FIRST_DESCRIPTOR = 3
_LISTEN = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_OF_ONE_PROCESS = (*_LISTEN, "WATCHDOG_PID")


def notify(*assignments: str, descriptors: tuple[int, ...] = ()) -> None:
    """Tell it, with copies of these descriptors. That it does not listen is logged."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    message = "\n".join(assignments).encode()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            socket.send_fds(sock, [message], descriptors)
    except OSError as error:
        _log.error("systemd does not hear", said=assignments[0], reason=error.strerror)


def reloading() -> None:
    """A reload begins; `ready` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def ready(status: str) -> None:
    notify("READY=1", f"STATUS={status}")


def stopping(status: str) -> None:
    notify("STOPPING=1", f"STATUS={status}")


def main_process(pid: int) -> None:
    """The service goes on as another process."""
    notify(f"MAINPID={pid}")


def start_watchdog(loop: asyncio.AbstractEventLoop) -> None:
    """Tell it from now on, twice as often as it wants to hear that, that this loop runs."""
    pid = os.environ.get("WATCHDOG_PID")
    try:
        limit_us = int(os.environ.get("WATCHDOG_USEC", "0"))
        if limit_us <= 0 or (pid is not None and int(pid) != os.getpid()):
            return
    except ValueError:
        return

    def beat() -> None:
        notify("WATCHDOG=1")
        loop.call_later(limit_us / 2e6, beat)

    beat()


class Given(NamedTuple):
    """A descriptor that this process was started with, under a name."""

    name: str
    descriptor: int


def take_descriptors() -> list[Given]:
    """What it has opened for this process or kept for it; to be called once, before anything is opened."""
    try:
        is_ours = int(os.environ.get("LISTEN_PID", "0")) == os.getpid()
        count = int(os.environ.get("LISTEN_FDS", "0")) if is_ours else 0
    except ValueError:
        count = 0
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    for variable in _LISTEN:
        os.environ.pop(variable, None)
    given = []
    for number in range(count):
        descriptor = _FIRST_DESCRIPTOR + number
        with contextlib.suppress(OSError):  # it is not open
            os.set_inheritable(descriptor, False)
            given.append(Given(names[number] if number < len(names) else "", descriptor))
    return given


def environment_of_next(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what is meant for this process alone."""
    return {name: value for name, value in environment.items() if name not in _OF_ONE_PROCESS}
