"""A worker as its supervisor sees it: a process, its orders, its reports."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from sentinel_wasm.guest.failures import Health
from sentinel_wasm.metrics import Samples
from sentinel_wasm.server import channel, events, handover
from sentinel_wasm.server.child import ending
from sentinel_wasm.server.compiling import Checked
from sentinel_wasm.server.handover import Carried
from sentinel_wasm.settings import Wanted

_READ_BYTES = 65_536
_GIVE_S = 30.0  # more than connections are waited for
_RELOAD_S = 30.0  # instances start within 10 s
_REPORT_S = 1.0  # one that is busy for longer is counted as it was
_OF_THE_SUPERVISOR = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
_HEALTH = {report: health for health, report in channel.HEALTH.items()}

# The same modules as here, wherever the agent was started: -m would look into the working directory first.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[3:]; from sentinel_wasm.server.worker import main;"
    " main(int(sys.argv[1]), int(sys.argv[2]))"
)


class Process:
    """`bury` it when `hear` says that it is gone."""

    def __init__(self, start: channel.Start) -> None:
        """Starts it. Raises OSError where no process or descriptor is left for it."""
        self.number = start.worker
        self.is_ready = False
        self.health: Health = "healthy"
        self.connections = 0  # dealt to it and not closed
        self.untaken: deque[Carried] = deque()  # open here until it has them: it may die before
        self.reverse: Counter[str] = Counter()  # those of --connect among them, by its path
        self._lost: list[tuple[str, float]] = []  # of these, for how many seconds each was open
        self.failure = ""  # why it could not start, where it says so
        self.samples: Samples = {}  # its metrics, as it last reported them
        self.about: dict[str, Any] = {}  # and what else the page shows of it
        self._gives: asyncio.Future[bool] | None = None
        self._reloading: asyncio.Future[str] | None = None
        self._entries: list[bytes] = []  # its events that nobody has taken yet
        self._last = 0  # the number of the last of them
        self._samples_wanted = _Question()
        self._sight_wanted = _Question()
        self._said = bytearray()
        self._orders, orders = channel.orders()
        channel.send_start(self._orders, start)
        self._orders.setblocking(False)
        with orders:
            self.reports, reports = os.pipe()
            try:
                self._process = _spawn(orders.fileno(), reports)
            except OSError:
                self._close()
                raise
            finally:
                os.close(reports)

    @property
    def pid(self) -> int:
        return self._process.pid

    def deal(self, dealt: Carried) -> bool:
        """Give it a connection; False where it is dead or takes none."""
        try:
            handover.send_connection(self._orders, dealt)
        except OSError:
            return False
        self.untaken.append(dealt)
        self.connections += 1
        if dealt.state.proxy:
            self.reverse[dealt.state.proxy] += 1
        return True

    def set_debug(self, on: bool) -> bool:
        """Have it log more, or less; False where it is dead or takes no order."""
        try:
            channel.send_debug(self._orders, on)
        except OSError:
            return False
        return True

    async def give_all(self, end: socket.socket) -> bool:
        """Have it give its connections to another process; False where that is gone, and it keeps some.

        Raises OSError where it takes no order.
        """
        gives = self._gives = asyncio.get_running_loop().create_future()
        with end:
            channel.send_give_all(self._orders, end)
        done, _ = await asyncio.wait([gives], timeout=_GIVE_S)
        return gives.result() if done else True  # it hangs, and ends with this process

    async def ask(self) -> None:
        """Have it report `samples` anew, if it does so in time."""
        await self._samples_wanted.ask(lambda: channel.ask(self._orders))

    async def look(self) -> None:
        """Have it report `about` and its new events, if it does so in time."""
        await self._sight_wanted.ask(lambda: channel.look(self._orders, self._last))

    def take_entries(self) -> bytes:
        """Its events since the last call, as `Recent.since` gives them."""
        entries, self._entries = self._entries, []
        return b"".join(entries)

    def take_lost(self) -> list[tuple[str, float]]:
        """The connections of --connect that were lost since the last call, and for how many seconds each was
        open.
        """
        lost, self._lost = self._lost, []
        return lost

    async def reload(self, wanted: Wanted, checked: list[Checked]) -> str:
        """Why it has not, and keeps what it has; empty where it has reloaded."""
        try:
            channel.send_reload(self._orders, wanted, checked)
        except OSError as error:
            return f"it takes no orders: {error.strerror}"
        reloading = self._reloading = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait([reloading], timeout=_RELOAD_S)
        return reloading.result() if done else f"it has not said within {_RELOAD_S:.0f} s that it did"

    def hear(self) -> bool:
        """Take in its reports, once `reports` can be read; False where it is gone."""
        data = os.read(self.reports, _READ_BYTES)
        self._said += data
        while self._said and self._take_in(bytes(self._said[:1])):
            pass
        return bool(data)

    def _take_in(self, report: bytes) -> bool:
        """The next report; False where it has not come whole."""
        size = 1
        if report == channel.FAILED:
            self.failure = self._said[1:].decode(errors="replace")
            return False
        if report in (channel.SAMPLES, channel.KEPT_OLD, channel.LOST):
            found = channel.read_long(self._said)
            if found is None:
                return False
            says, size = found
            if report == channel.SAMPLES:
                self.samples = says
                self._samples_wanted.answered()
            elif report == channel.KEPT_OLD:
                self._reloaded(says)
            else:
                self._has_lost(*says)
        elif report == channel.SEEN:
            sight = channel.read_seen(self._said)
            if sight is None:
                return False
            seen, size = sight
            self.about = seen.about
            self._take_entries_in(seen.entries)
            self._sight_wanted.answered()
        elif report == channel.RELOADED:
            self._reloaded("")
        elif report == channel.READY:
            self.is_ready = True
        elif report in _HEALTH:
            self.health = _HEALTH[report]
        elif report == channel.TAKEN:
            self.untaken.popleft().sock.close()
        elif report == channel.DROPPED:
            dropped = self.untaken.popleft()
            dropped.sock.close()
            self.connections -= 1
            if dropped.state.proxy:
                self._has_lost(dropped.state.proxy, 0)
        elif report in (channel.GIVEN, channel.KEPT):
            self._has_given(everything=report == channel.GIVEN)
        elif report == channel.CLOSED:
            self.connections -= 1
        del self._said[:size]
        return True

    def _has_lost(self, proxy: str, lived_s: float) -> None:
        self.reverse[proxy] -= 1
        self._lost.append((proxy, lived_s))

    def _has_given(self, *, everything: bool) -> None:
        gives, self._gives = self._gives, None
        if gives is not None and not gives.done():
            gives.set_result(everything)

    def _take_entries_in(self, entries: bytes) -> None:
        # Some may have come already: where it is late, it is asked for the same again.
        if entries := events.behind(entries, self._last):
            self._entries.append(entries)
            self._last = events.last_number(entries)

    def _reloaded(self, reason: str) -> None:
        if self._reloading is not None and not self._reloading.done():
            self._reloading.set_result(reason)

    def end(self) -> None:
        """Have it drain and end, or kill it where it does not serve yet."""
        self._orders.close()
        if not self.is_ready:
            self.kill()

    def kill(self) -> None:
        self._process.kill()

    def bury(self) -> str:
        """How it ended."""
        self._close()
        self._samples_wanted.answered()
        self._sight_wanted.answered()
        self._has_given(everything=True)  # as far as it had any
        self._reloaded("it has ended")
        status = self._process.wait()
        return self.failure or ending(status)

    def _close(self) -> None:
        self._orders.close()
        os.close(self.reports)


class _Question:
    """What the worker is asked: once, however many wait for the answer."""

    def __init__(self) -> None:
        self._asked: asyncio.Future[None] | None = None

    async def ask(self, send: Callable[[], None]) -> None:
        """Wait until it is answered, for a second at most; not at all where `send` raises OSError."""
        if self._asked is None:
            try:
                send()
            except OSError:
                return
            self._asked = asyncio.get_running_loop().create_future()
        asked = self._asked
        await asyncio.wait([asked], timeout=_REPORT_S)
        # One that is late is asked again the next time.
        if self._asked is asked:
            self._asked = None

    def answered(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None and not asked.done():
            asked.set_result(None)


def _spawn(orders: int, reports: int) -> subprocess.Popen[bytes]:
    # A terminal's Ctrl-C and systemd's signals reach workers too, which do what they are told: blocked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_SUPERVISOR)
    try:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _PROGRAM, str(orders), str(reports), *sys.path],
            pass_fds=(orders, reports),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
