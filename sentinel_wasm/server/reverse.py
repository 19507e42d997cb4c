"""Reverse connections: to proxies that listen for agents (agent-protocol.md, section 5).

The agent opens such a connection and registers on it; from then on it is a v2 connection as any other. Those
of --connect are kept up: what is refused or lost is tried again, after 0.1 s at first, after 30 s at most.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import stat
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import structlog

from sentinel_wasm.errors import ProtocolError, RefusedError, UserError
from sentinel_wasm.metrics import Samples, series
from sentinel_wasm.protocol import handshake
from sentinel_wasm.protocol.frames import FrameReader, FrameType, encode_v2
from sentinel_wasm.server.handover import Adopt, Carried, State
from sentinel_wasm.settings import Settings

_log = structlog.stdlib.get_logger("reverse")

_ANSWER_S = 5.0  # of the proxy
_PAUSE_S, _PAUSE_MOST_S = 0.1, 30.0
_AT_ONCE_S = 1.0  # what is lost sooner was not wanted
LONG_S = 20.0  # what was open for so long ended for another reason than its attempt
_ANSWER_BYTES = 65_536
_TOKEN_BYTES = 4096
_READ_BYTES = 4096
_RESULTS = ("ok", "refused", "failed")
_AT_ONCE = "the proxy takes it and closes it: it may have enough connections of this agent"


class Reverse:
    """Keeps up the connections of --connect. `live` says how many of them this agent has, by their path."""

    def __init__(self, settings: Settings, adopt: Adopt, live: Callable[[], Counter[str]]) -> None:
        """`adopt` gets each connection once it is registered. Raises UserError where the token's file cannot
        be used.
        """
        self._token_file = settings.connect_token_file
        self._adopt = adopt
        self._live = live
        wanted = Counter(str(path.absolute()) for path in settings.connect)
        self._proxies = {path: _Proxy(path, wanted=count) for path, count in wanted.items()}
        self._tasks: list[asyncio.Task[None]] = []
        if self._proxies:
            self._token()

    def start(self) -> None:
        """Open those that this agent does not have."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep_up(proxy)) for proxy in self._proxies.values()]

    def stop(self) -> None:
        """Open no more. Those that are open stay."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    def lost(self, path: str, lived_s: float) -> None:
        """A connection has ended, after so long."""
        proxy = self._proxies.get(path)
        if proxy is not None and self._tasks:
            proxy.lost(lived_s)

    def samples(self) -> Samples:
        live = self._live()
        samples: Samples = {}
        for path, proxy in self._proxies.items():
            samples[series("reverse_connections_open", socket=path)] = live[path]
            samples[series("reverse_connections_wanted", socket=path)] = proxy.wanted
            samples[series("reverse_connections_lost_total", socket=path)] = proxy.lost_so_far
            for result, count in proxy.results.items():
                samples[series("reverse_registrations_total", socket=path, result=result)] = count
        return samples

    async def _keep_up(self, proxy: _Proxy) -> None:
        while True:
            proxy.changed.clear()
            if self._live()[proxy.path] >= proxy.wanted:
                await proxy.changed.wait()
                continue
            await asyncio.sleep(proxy.pause_s())
            try:
                await self._connect(proxy)
            except RefusedError as error:
                proxy.failed("refused", str(error))
            except asyncio.TimeoutError:
                proxy.failed("failed", f"no answer within {_ANSWER_S:g} s")
            except (OSError, ProtocolError, UserError) as error:
                proxy.failed("failed", getattr(error, "strerror", None) or str(error))
            except Exception as defect:
                _log.error("internal error, please report it", exc_info=defect)
                proxy.failed("failed", f"internal error: {type(defect).__name__}")

    async def _connect(self, proxy: _Proxy) -> None:
        """Raises OSError, TimeoutError, ProtocolError or UserError."""
        token = self._token()
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            sock.connect(proxy.path)  # no Unix socket makes one wait
            registered, unread = await asyncio.wait_for(_register(sock, token), _ANSWER_S)
        except BaseException:
            sock.close()
            raise
        proxy.registered(registered)
        state = State(2, True, time.monotonic_ns(), unread, proxy=proxy.path)
        await self._adopt(Carried(sock, state))

    def _token(self) -> str | None:
        return None if self._token_file is None else _read_token(self._token_file)


class _Proxy:
    """One that listens for agents, and how it went with it."""

    def __init__(self, path: str, *, wanted: int) -> None:
        self.path = path
        self.wanted = wanted
        self.changed = asyncio.Event()
        self.results = dict.fromkeys(_RESULTS, 0)
        self.lost_so_far = 0
        self._bound_s = 0.0  # of the next pause
        self._trouble = ""  # as it was logged last; it is over: ""

    def pause_s(self) -> float:
        """Before the next attempt: anything up to the bound, so that agents do not come all at once."""
        return random.uniform(0, self._bound_s)  # noqa: S311

    def failed(self, result: str, reason: str) -> None:
        self.results[result] += 1
        self._back_off()
        self._say(reason)

    def registered(self, registered: handshake.Registered) -> None:
        self.results["ok"] += 1
        if self._trouble != _AT_ONCE:
            self._trouble = ""
            _log.info("registered with a proxy", socket=self.path, **registered._asdict())

    def lost(self, lived_s: float) -> None:
        self.lost_so_far += 1
        if lived_s < LONG_S:
            self._back_off()
        else:
            self._bound_s = _PAUSE_S
        if lived_s < _AT_ONCE_S:
            self._say(_AT_ONCE)
        else:
            self._trouble = ""
            _log.warning("a connection of --connect is lost", socket=self.path)
        self.changed.set()

    def _back_off(self) -> None:
        self._bound_s = min(max(2 * self._bound_s, _PAUSE_S), _PAUSE_MOST_S)

    def _say(self, trouble: str) -> None:
        """Once, until it is over or another."""
        if trouble != self._trouble:
            self._trouble = trouble
            _log.error("no connection of --connect, trying again", socket=self.path, reason=trouble)


async def _register(sock: socket.socket, token: str | None) -> tuple[handshake.Registered, bytes]:
    """Say who we are, and give what the proxy says, and what it has sent behind that."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, encode_v2(FrameType.HANDSHAKE_REQUEST, handshake.registration(token)))
    frames = FrameReader(2)
    while (answer := frames.next_frame()) is None:
        if frames.unread > _ANSWER_BYTES:
            raise ProtocolError(f"its answer has over {_ANSWER_BYTES} bytes")
        data = await loop.sock_recv(sock, _READ_BYTES)
        if not data:
            raise ProtocolError("the proxy closed the connection without an answer")
        frames.feed(data)
    if frames.frame_type != FrameType.HANDSHAKE_RESPONSE:
        raise ProtocolError(f"its answer is a frame of type 0x{frames.frame_type:02x}, expected 0x02")
    return handshake.read_registration(answer), frames.take_unread()


def _read_token(path: Path) -> str:
    """Raises UserError where it cannot be used, or where others may read it."""
    try:
        # It may be anything, and is not to be waited for.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_TOKEN_BYTES + 1) if stat.S_ISREG(mode) else None
    except OSError as error:
        raise UserError(f"cannot read the token of --connect in {path}: {error.strerror}") from None
    if data is None:
        raise UserError(f"{path} is not a file, expected one with the token of --connect")
    if mode & stat.S_IROTH:
        raise UserError(f"{path} has the token of --connect and everybody can read it: chmod o-r it")
    token = data.strip()
    if len(data) > _TOKEN_BYTES or not token.isascii() or not token:
        raise UserError(f"{path} is no token of --connect: expected ASCII text of up to {_TOKEN_BYTES} bytes")
    return token.decode()
