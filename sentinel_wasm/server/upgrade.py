"""Upgrade in place: a new process takes sockets and live connections over from the one that serves.

The new one is started by hand with --takeover, or by the old one on SIGUSR2. When it is warm it asks at the
control socket, which is beside the agent's. Where it dies before it has all, the old one goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

import structlog

from sentinel_wasm import __version__
from sentinel_wasm.errors import SocketError, UserError
from sentinel_wasm.protocol.events import Configure
from sentinel_wasm.server import admin, handover, systemd
from sentinel_wasm.server.child import ending
from sentinel_wasm.server.peer import peer_of
from sentinel_wasm.server.sockets import Sockets, control_path
from sentinel_wasm.settings import Settings

_log = structlog.stdlib.get_logger("upgrade")

_ANSWER_S = 10.0  # of the other process
_START_S = 60.0  # a module may compile for 10 s, and start for as long
_LOOK_S = 0.1  # whether it has ended


# The new process's side


class Predecessor:
    """The process before this one. `configured`: what its module was given by a proxy last."""

    def __init__(self, end: socket.socket, sockets: Sockets, configured: Configure | None) -> None:
        self.sockets = sockets
        self.configured = configured
        self._end = end

    async def take_over(self, adopt: handover.Adopt) -> None:
        """Say that this process accepts now, and take all connections."""
        handover.send(self._end, handover.ACCEPTS, {})
        taker = handover.Taker(self._end, adopt)
        await taker.take_all()
        self.sockets.are_shared = False
        _log.info(
            "taken over",
            connections=taker.taken,
            longest_pause_ms=round(taker.longest_pause_s * 1000, 1),
        )


def ask(settings: Settings) -> Predecessor | None:
    """What the process that has the agent's socket gives to this one; None: there is none such.

    Raises UserError where it gives nothing.
    """
    path = control_path(settings.socket)
    end = socket.socket(socket.AF_UNIX)
    end.settimeout(_ANSWER_S)
    try:
        end.connect(str(path))
        check_peer(end)
        handover.send(end, handover.ASK, {"format": handover.FORMAT, "version": __version__})
        message = handover.receive(end)
    except (FileNotFoundError, ConnectionRefusedError):
        end.close()
        return None
    except (OSError, UserError) as error:
        end.close()
        raise SocketError(f"cannot take over from the agent at {path}: {error}") from None
    if message is None or message.kind != handover.LISTENING:
        end.close()
        reason = message.says["reason"] if message is not None else "it ended"
        raise SocketError(f"cannot take over from the agent at {path}: {reason}")
    agent, control, *others = message.sockets
    says = message.says
    files = {name: (device, inode) for name, device, inode in says["files"]}
    sockets = Sockets(agent, control, others[0] if others else None, files)
    sockets.are_shared = True
    if says["admin"] != str(settings.admin):
        _listen_elsewhere(sockets, settings)
    return Predecessor(end, sockets, handover.read_configured(says["configured"]))


def _listen_elsewhere(sockets: Sockets, settings: Settings) -> None:
    """--admin is another one than the process before this had."""
    if sockets.admin is not None:
        sockets.admin.close()
    sockets.admin = None if settings.admin is None else admin.listen(settings.admin)


def check_peer(end: socket.socket) -> int:
    """The other process's id. Raises UserError where it is not of this user."""
    peer = peer_of(end)
    if peer.uid not in (os.geteuid(), 0):
        raise UserError(f"it runs as user {peer.uid}, and this process as {os.geteuid()}")
    return peer.pid


# The old process's side


class Serves(Protocol):
    """A process as its upgrade sees it."""

    @property
    def configured(self) -> Configure | None:
        """What its module was given by a proxy last."""

    async def accept(self) -> None:
        """Take new connections."""

    def connect(self) -> None:
        """Open the connections of --connect that it does not have."""

    def accept_no_more(self) -> None:
        """Leave new connections to the other process."""

    async def give_all(self, end: socket.socket) -> bool:
        """As `giver.Giver.give_all`."""


class Upgrade:
    """Waits for the next process, and gives it all. `ended` is called when it has it."""

    def __init__(
        self, settings: Settings, sockets: Sockets, process: Serves, ended: Callable[[], None]
    ) -> None:
        self._admin = settings.admin
        self._sockets = sockets
        self._process = process
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._next: subprocess.Popen[bytes] | None = None
        self._late: asyncio.TimerHandle | None = None

    async def run(self, before: Predecessor | None, adopt: handover.Adopt) -> None:
        """Take over from the process before, and then wait for the next one."""
        try:
            if before is not None:
                await before.take_over(adopt)
        except (OSError, UserError) as error:
            _log.error("cannot take over, this process ends", reason=str(error))
            self._ended()
            return
        self._process.connect()
        systemd.start_watchdog(self._loop)
        systemd.ready(f"listening, as process {os.getpid()}")
        self._loop.add_signal_handler(signal.SIGUSR2, self._on_signal)
        self._listen()

    def _listen(self) -> None:
        if self._sockets.control is not None:
            self._loop.add_reader(self._sockets.control, self._on_connection)

    def _on_connection(self) -> None:
        assert self._sockets.control is not None
        try:
            end, _ = self._sockets.control.accept()
        except OSError:
            return
        try:
            pid = check_peer(end)
        except UserError as error:
            _log.error("a process may not take over", reason=str(error))
            end.close()
            return
        # One at a time: who comes meanwhile waits, and is the next process's.
        self._loop.remove_reader(self._sockets.control)
        self._task = self._loop.create_task(self._hand_over(end, pid))

    async def _hand_over(self, end: socket.socket, pid: int) -> None:
        with end:
            try:
                if await self._give_sockets(end) and await self._give_connections(end):
                    _log.info("handed over, this process ends", to=pid)
                    systemd.main_process(pid)
                    self._ended()
                    return
            except (OSError, asyncio.TimeoutError, ValueError, KeyError, TypeError) as error:
                _log.error("the upgrade failed, this process goes on", reason=str(error) or "no answer came")
        if self._next is not None and self._next.pid == pid:
            self._next.kill()
        self._sockets.are_shared = False
        self._listen()

    async def _give_sockets(self, end: socket.socket) -> bool:
        """Whether the new process accepts now."""
        end.setblocking(False)
        asked = await asyncio.wait_for(handover.next_message(end), _ANSWER_S)
        if asked is None or asked.kind != handover.ASK:
            return False  # another agent looks whether this one lives
        if asked.says["format"] != handover.FORMAT:
            reason = (
                f"version {__version__} hands over in format {handover.FORMAT}, version"
                f" {asked.says['version']} in {asked.says['format']}: stop it and start the other"
            )
            handover.send(end, handover.REFUSED, {"reason": reason})
            raise ValueError(reason)
        self._is_in_time()
        _log.info("another process takes over", version=asked.says["version"])
        sockets = self._sockets
        configured = self._process.configured
        says = {
            "format": handover.FORMAT,
            "files": [[path, *identity] for path, identity in sockets.files.items()],
            "admin": str(self._admin),
            "configured": None if configured is None else configured._asdict(),
        }
        given = (
            sock.fileno() for sock in (sockets.agent, sockets.control, sockets.admin) if sock is not None
        )
        handover.send(end, handover.LISTENING, says, *given)
        ready = await asyncio.wait_for(handover.next_message(end), _ANSWER_S)
        if ready is None or ready.kind != handover.ACCEPTS:
            raise ValueError("the new process ended before it accepted")
        self._sockets.are_shared = True
        return True

    async def _give_connections(self, end: socket.socket) -> bool:
        """This process ends now, where the new one is not gone before it has all."""
        self._process.accept_no_more()
        try:
            has_all = await self._process.give_all(end)
        except OSError as error:
            _log.error("connections stay here, and are drained", reason=error.strerror)
            has_all = True
        if not has_all:
            await self._process.accept()
            self._process.connect()
            raise ValueError("the new process ended before it had all connections")
        with contextlib.suppress(OSError):
            handover.send(end, handover.END, {})
        return True

    # SIGUSR2

    def _on_signal(self) -> None:
        if self._next is not None:
            _log.warning("an upgrade is under way already")
        elif self._sockets.control is None:
            _log.error("no upgrade in place: there is no control socket, as was said at the start")
        elif os.getpid() == 1:
            _log.error("no upgrade in place: with this process, the first of its container, all others end")
        else:
            self._start_next()

    def _start_next(self) -> None:
        command = [sys.executable, *sys.orig_argv[1:]]
        try:
            self._next = subprocess.Popen(  # noqa: S603
                command, env={**systemd.environment_of_next(os.environ), "WASM_TAKEOVER": "true"}
            )
        except OSError as error:
            _log.error("the new process cannot be started, this one goes on", reason=str(error))
            return
        _log.info("upgrade: a new process starts", pid=self._next.pid, command=command)
        self._late = self._loop.call_later(_START_S, self._next.kill)
        self._look_at_next()

    def _is_in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()

    def _look_at_next(self) -> None:
        """Not by a pidfd, which Linux has since 5.3 and macOS not: RHEL 8 is older."""
        assert self._next is not None
        status = self._next.poll()
        if status is None:
            self._loop.call_later(_LOOK_S, self._look_at_next)
            return
        self._is_in_time()
        self._next = None
        _log.error("the new process ended, this one goes on", reason=ending(status))
