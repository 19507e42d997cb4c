"""Upgrade in place: real processes, one after the other, on the same connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import uvloop

from sentinel_wasm.agent import Agent
from sentinel_wasm.client import Client, ClientV2
from sentinel_wasm.errors import UserError
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.module import Module
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameReader, FrameType, encode_v2
from sentinel_wasm.server import giver, handover, listener, upgrade
from sentinel_wasm.server.handover import Carried, State
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.server.sockets import control_path
from sentinel_wasm.settings import Settings

from .conftest import EXAMPLES, BuildWat, RunningAgent, StartAgent, until
from .scraping import LOCAL, Scraped, address
from .test_workers import children
from .upgrading import BLOCKS_WHEN_CONFIGURED, Stream, Upgrading, asked, frame_v1, frame_v2, is_blocked, lines
from .wat import quoted

pytestmark = pytest.mark.parallel

if TYPE_CHECKING:
    from typing_extensions import Self

C_EXAMPLE = EXAMPLES / "c" / "security.wasm"


def inode(path: Path) -> int:
    return path.stat().st_ino


# --- the streams


def test_frames_that_were_half_sent_are_answered(start_agent: StartAgent) -> None:
    shake = encode_v2(FrameType.HANDSHAKE_REQUEST, orjson.dumps({"supported_versions": [2]}))
    chunk = {"correlation_id": "large", "data": "QUJD" * 2_000_000, "is_last": True}
    large = encode_v2(FrameType.REQUEST_BODY_CHUNK, orjson.dumps(chunk))
    agent = start_agent(C_EXAMPLE, "--timeout-ms", "20000")
    with Upgrading(agent) as upgrading, Client(agent.socket, 2) as fresh, agent.v2() as heavy:
        fresh.send(shake[:9])
        heavy.send(large[: len(large) // 2])
        halves = []
        for number, cut in enumerate((0, 1, 3, 4, 5, 6, 200, -1)):
            for client, frame in (
                (agent.v1(), frame_v1(f"old-{number}", bad=bool(number % 2))),
                (agent.v2(), frame_v2(f"new-{number}", bad=bool(number % 2))),
            ):
                client.send(frame[:cut])
                halves.append((client, frame[cut:], number))
        assert upgrading.upgrade()["connections"] == len(halves) + 2
        for client, rest, number in halves:
            client.send(rest)
            answer = orjson.loads(client.receive())
            assert is_blocked(answer) is bool(number % 2)
            if isinstance(client, ClientV2):
                assert answer["audit"]["custom"] == {"correlation_id": f"new-{number}"}
            client.close()
        fresh.send(shake[9:] + frame_v2("a", bad=True))
        assert orjson.loads(fresh.receive())["success"] is True
        assert is_blocked(orjson.loads(fresh.receive()))
        heavy.send(large[len(large) // 2 :])
        answer = orjson.loads(heavy.receive())
        assert (answer["decision"], answer["audit"]["custom"]) == ("allow", {"correlation_id": "large"})


@pytest.mark.parametrize("options", [(), ("--dispatch", "threads")], ids=["loop", "threads"])
def test_events_in_flight_and_new_connections_over_two_upgrades(
    start_agent: StartAgent, options: tuple[str, ...]
) -> None:
    """Each is answered once and rightly; 64 at a time on one of the connections."""
    agent = start_agent(C_EXAMPLE, *options)
    with Upgrading(agent) as upgrading, agent.v1() as old:
        stream = Stream(agent.socket, 64)
        node = inode(agent.socket)
        for turn in range(2):
            upgrading.begin()
            end = time.monotonic() + 60
            while len(lines(agent, "taken over")) == turn:
                assert time.monotonic() < end, agent.log
                # Connections come at any moment of it.
                with agent.v2() as new, agent.v1() as fresh:
                    for client in (new, fresh, old):
                        bad = turn % 2 == 0
                        assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("c", bad=bad))) is bad
            upgrading.finish()
            assert inode(agent.socket) == node
        stream.close()
        assert stream.answered > 64


def test_workers_hand_over_and_their_number_may_change(start_agent: StartAgent, tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("workers = 2")
    agent = start_agent(C_EXAMPLE, "--config", str(file))
    with Upgrading(agent) as upgrading:
        stream = Stream(agent.socket, 64)
        clients = [agent.v1() if number % 2 else agent.v2() for number in range(6)]
        for workers in (1, 2):
            file.write_text(f"workers = {workers}")
            frames = [frame_v2("a", bad=True), frame_v1("a", bad=True)] * 3
            for number, client in enumerate(clients):
                client.send(frames[number][: 50 * number])
            assert upgrading.upgrade()["connections"] == 7
            for number, client in enumerate(clients):
                client.send(frames[number][50 * number :])
                assert is_blocked(orjson.loads(client.receive()))
        for client in clients:
            client.close()
        stream.close()
        assert stream.answered > 64
        # Workers that have no descriptor left for the order drain what they have, and are not waited for.
        with agent.v2() as last:
            last.ask(EventKind.REQUEST_HEADERS, asked("last"))
            for worker in children(upgrading.pid):
                limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
                resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, limits[1]))
            began = time.monotonic()
            assert upgrading.upgrade()["connections"] == 0
            assert time.monotonic() - began < 20
            assert orjson.loads(last.receive()) == {"state": 3}
            with pytest.raises(ConnectionError):
                last.receive()


def test_more_connections_than_a_message_has_descriptors(start_agent: StartAgent) -> None:
    with Upgrading(start_agent(C_EXAMPLE)) as upgrading:
        clients = []
        for number in range(300):
            clients.append(upgrading.agent.v1())
            # Answered once, so that it is none of those that still wait to be accepted.
            clients[-1].ask(EventKind.REQUEST_HEADERS, asked("a"))
            clients[-1].send(frame_v1("a", bad=bool(number % 2))[:100])
        assert upgrading.upgrade()["connections"] == 300
        for number, client in enumerate(clients):
            client.send(frame_v1("a", bad=bool(number % 2))[100:])
            assert is_blocked(orjson.loads(client.receive())) is bool(number % 2)
            client.close()


# --- what goes along


def test_the_configuration_of_the_proxy_goes_along(start_agent: StartAgent, build_wat: BuildWat) -> None:
    wasm = build_wat(BLOCKS_WHEN_CONFIGURED)
    with Upgrading(start_agent(wasm)) as upgrading, upgrading.agent.v1() as client:
        assert not is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("a")))
        client.ask(EventKind.CONFIGURE, {"agent_id": "wasm", "config": {"mode": "block everything"}})
        assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("b")))
        for _ in range(2):
            upgrading.upgrade()
            assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("c")))


def test_a_new_module_that_refuses_it_does_not_get_the_connections(
    start_agent: StartAgent, build_wat: BuildWat, tmp_path: Path
) -> None:
    wasm = tmp_path / "filter.wasm"
    shutil.copy(build_wat(BLOCKS_WHEN_CONFIGURED), wasm)
    with Upgrading(start_agent(wasm)) as upgrading, upgrading.agent.v1() as client:
        client.ask(EventKind.CONFIGURE, {"agent_id": "wasm", "config": {"mode": "block everything"}})
        refuses = '(i64.const 0))\n  (func (export "on_request_headers")'
        assert refuses in BLOCKS_WHEN_CONFIGURED
        text = BLOCKS_WHEN_CONFIGURED.replace(
            refuses,
            f"""(if (result i64) (i32.gt_u (local.get 1) (i32.const 20))
              (then (i64.const {(8192 << 32) | 15})) (else (i64.const 0))))
            (data (i32.const 8192) "{quoted('{"error":"no!"}')}")
            (func (export "on_request_headers")""",
        )
        wasm.write_bytes(build_wat(text).read_bytes())
        upgrading.begin()
        assert "no!" in upgrading.agent.wait_for_log("the module refuses the configuration")
        upgrading.agent.wait_for_log("the new process ended, this one goes on")
        assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("b")))


def test_the_admin_address_goes_along(start_agent: StartAgent) -> None:
    with Upgrading(start_agent(C_EXAMPLE, *LOCAL)) as upgrading, upgrading.agent.v2() as client:
        where = address(upgrading.agent)
        client.ask(EventKind.REQUEST_HEADERS, asked("a"))
        upgrading.upgrade()
        page = Scraped(upgrading.agent)
        assert page.value("connections_open", protocol="v2") == 1
        assert page.value("events_total", hook="on_request_headers") == 0  # another process counts anew
        assert {line["address"] for line in lines(upgrading.agent, "admin endpoint")} == {where}


def test_a_v1_event_that_waited_too_long_meanwhile_is_not_answered(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its proxy has given it up, and would take the answer for the next request's."""
    with Predecessor(tmp_path) as before:
        old, old_end = before.connection()
        new, new_end = before.connection()
        idle, idle_end = before.connection()
        old.send(frame_v1("late", bad=False))
        new.send(frame_v2("late", bad=False))
        long_ago = time.monotonic_ns() - 10_000_000_000
        before.give(old_end, State(1, False, long_ago))
        before.give(new_end, State(2, True, long_ago))
        before.give(idle_end, State(1, False, long_ago))
        agent = before.start_next(tmp_path_factory.mktemp("a"))
        assert old.recv(100) == b""
        assert "an answer took" in agent.wait_for_log("connection closed")
        reader = FrameReader(2)
        while (payload := reader.next_frame()) is None:
            reader.feed(new.recv(65_536))
        assert orjson.loads(payload)["audit"]["custom"] == {"correlation_id": "late"}
        idle.send(frame_v1("in time", bad=True))
        assert b"block" in idle.recv(65_536)


# --- who takes over


def test_a_start_by_hand_takes_over(start_agent: StartAgent) -> None:
    old = start_agent(C_EXAMPLE)
    assert stat.S_IMODE(control_path(old.socket).stat().st_mode) == 0o600
    with old.v2() as client:
        client.send(frame_v2("a", bad=True)[:50])
        new = start_agent(C_EXAMPLE, "--takeover", socket=old.socket)
        assert orjson.loads(new.wait_for_log("taken over"))["connections"] == 1
        assert old.process.wait(15) == 0
        client.send(frame_v2("a", bad=True)[50:])
        assert is_blocked(orjson.loads(client.receive()))
        assert new.stop() == 0
    assert not old.socket.exists()
    assert not control_path(old.socket).exists()


def test_takeover_where_no_agent_runs_is_a_start(start_agent: StartAgent) -> None:
    first = start_agent(C_EXAMPLE, environment={"WASM_TAKEOVER": "true"})
    first.stop(signal.SIGKILL)
    again = start_agent(C_EXAMPLE, "--takeover", socket=first.socket)
    with again.v1() as client:
        assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("a", bad=True)))


def test_a_process_of_another_format_gets_nothing(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE)
    with agent.v1() as client, ask_to_take_over(agent, {"format": 99, "version": "9.9"}) as end:
        message = handover.receive(end)
        assert message is not None
        assert message.kind == handover.REFUSED
        assert "version 9.9 in 99" in message.says["reason"]
        agent.wait_for_log("the upgrade failed, this process goes on")
        assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("a", bad=True)))


def test_a_process_of_another_user_gets_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    user = os.geteuid()
    with socket.socket(socket.AF_UNIX) as theirs, socket.socket(socket.AF_UNIX) as ours:
        theirs.bind(str(tmp_path / "s"))
        if user == 0:
            os.seteuid(65_534)
        try:
            theirs.listen()
        finally:
            os.seteuid(user)
        ours.connect(str(tmp_path / "s"))
        if user != 0:
            monkeypatch.setattr(os, "geteuid", lambda: user + 1)
        with pytest.raises(UserError, match="it runs as user"):
            upgrade.check_peer(ours)


# --- when it fails


def test_new_processes_that_cannot_start_or_are_killed_cost_nothing(
    start_agent: StartAgent, tmp_path: Path
) -> None:
    wasm = tmp_path / "filter.wasm"
    shutil.copy(C_EXAMPLE, wasm)
    with Upgrading(start_agent(wasm)) as upgrading, upgrading.agent.v2() as client:
        wasm.write_text("<html>")
        upgrading.begin()
        reason = orjson.loads(upgrading.agent.wait_for_log("the new process ended"))
        assert reason["reason"] == "exit status 1"
        assert "not a WebAssembly binary" in upgrading.agent.log
        assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("a", bad=True)))
        shutil.copy(C_EXAMPLE, wasm)
        upgrading.begin()
        until(lambda: len(lines(upgrading.agent, "upgrade: a new process starts")) == 2)
        os.kill(lines(upgrading.agent, "upgrade: a new process starts")[-1]["pid"], signal.SIGKILL)
        upgrading.agent.wait_for_log("killed by SIGKILL")
        upgrading.upgrade()
        assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("b", bad=True)))


def test_connections_that_a_dying_process_did_not_take_go_on_in_the_old_one(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE)
    clients = [agent.v2() for _ in range(20)]
    for client in clients:
        client.send(frame_v2("a", bad=True)[:50])
    with ask_to_take_over(agent, {"format": handover.FORMAT, "version": "0"}) as end:
        message = handover.receive(end)
        assert message is not None
        for sock in message.sockets:
            sock.close()
        handover.send(end, handover.ACCEPTS, {})
        for _ in range(16):  # as many as are on the way at once
            message = handover.receive(end)
            assert message is not None
            assert message.kind == handover.CONNECTION
            for sock in message.sockets:
                sock.close()
    agent.wait_for_log("the new process ended before it had all connections")
    for client in clients:
        client.send(frame_v2("a", bad=True)[50:])
        assert is_blocked(orjson.loads(client.receive()))
        client.close()
    with agent.v1() as new:
        assert is_blocked(new.ask(EventKind.REQUEST_HEADERS, asked("b", bad=True)))


def test_an_agent_whose_control_socket_cannot_be_had_serves_all_the_same(
    start_agent: StartAgent, tmp_path: Path
) -> None:
    # 107 bytes, the most that a Unix socket's path may have: there is no room for the other's.
    path = tmp_path / ("x" * (107 - len(str(tmp_path)) - 1))
    agent = start_agent(C_EXAMPLE, socket=path)
    assert "cannot be upgraded in place" in agent.log
    os.kill(agent.process.pid, signal.SIGUSR2)
    agent.wait_for_log("no upgrade in place")
    with agent.v1() as client:
        assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("a", bad=True)))


@pytest.fixture
def giving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Giving]:
    """With less patience than an agent has."""
    monkeypatch.setattr(giver, "_PATIENCE_S", 0.3)
    giving = Giving()
    yield giving
    giving.close()


def test_a_connection_whose_client_does_not_read_stays_and_the_others_leave(giving: Giving) -> None:
    ping = encode_v2(FrameType.PING, bytes(60_000))

    async def give() -> bool:
        await giving.connect()
        reads_nothing = await giving.connect()
        left, blocked = b"", 0
        while blocked < 10:
            left = left or ping
            try:
                left, blocked = left[reads_nothing.send(left) :], 0
            except BlockingIOError:
                blocked += 1
                await asyncio.sleep(0.01)
        return await giving.give(takes=True)

    assert giving.loop.run_until_complete(give()) is True
    assert len(giving.serving.connections) == 1


def test_a_process_that_hangs_is_not_waited_for(giving: Giving) -> None:
    """It has what was sent to it: two processes on one connection would be worse than none."""

    async def give() -> bool:
        await giving.connect()
        return await giving.give(takes=False)

    assert giving.loop.run_until_complete(give()) is True
    assert not giving.serving.connections


class Giving:
    """A process's connections, here: what an agent waits for is shorter then."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        settings = Settings(module=Path("m.wasm"))
        self.agent = Agent(settings, Module.load(make_engine(), C_EXAMPLE))
        self.agent.attach(self.loop, lambda: None)
        self.serving = self.loop.run_until_complete(self._serving(settings))
        self._clients: list[socket.socket] = []

    async def _serving(self, settings: Settings) -> Serving:
        return Serving(settings, self.agent)

    async def connect(self) -> socket.socket:
        """The client's end of a connection, its handshake done."""
        client, server = socket.socketpair()
        client.setblocking(False)
        self._clients.append(client)
        await self.serving.adopt(Carried(server, State(2, True, time.monotonic_ns())))
        return client

    async def give(self, *, takes: bool) -> bool:
        """To a process that takes what it gets, or hangs."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        with ours, theirs:
            task = self.loop.create_task(giver.Giver(self.serving, ours).give_all())
            while not task.done():
                await asyncio.sleep(0.01)
                with contextlib.suppress(BlockingIOError):
                    message = handover.receive(theirs) if takes else None
                    if message is not None:
                        message.sockets[0].close()
                        theirs.send(handover.TAKEN)
            return task.result()

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.loop.run_until_complete(asyncio.sleep(0.05))
        self.agent.close()
        self.loop.close()


def ask_to_take_over(agent: RunningAgent, says: dict[str, Any]) -> socket.socket:
    """The next process's side of the control socket, which is to be answered."""
    end = socket.socket(socket.AF_UNIX)
    end.settimeout(10)
    end.connect(str(control_path(agent.socket)))
    handover.send(end, handover.ASK, says)
    return end


class Predecessor:
    """The old process's side, played here: a test says what it gives."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "agent.sock"
        self._listener = listener.listen(self.path)
        self._control = listener.listen(control_path(self.path), 0o600)
        self._control.settimeout(30)
        self._given: list[Carried] = []
        self._clients: list[socket.socket] = []
        self._agent: RunningAgent | None = None

    def connection(self) -> tuple[socket.socket, socket.socket]:
        """The client's end and the one to give."""
        client, server = socket.socketpair()
        client.settimeout(10)
        self._clients += client, server
        return client, server

    def give(self, server: socket.socket, state: State) -> None:
        self._given.append(Carried(server, state))

    def start_next(self, directory: Path) -> RunningAgent:
        """An agent that takes over what was given."""
        threading.Thread(target=self._hand_over, daemon=True).start()
        self._agent = RunningAgent(directory, C_EXAMPLE, "--takeover", socket=self.path)
        self._agent.wait_for_log("taken over")
        return self._agent

    def _hand_over(self) -> None:
        end, _ = self._control.accept()
        with end:
            assert handover.receive(end) is not None
            says = {"format": handover.FORMAT, "files": [], "admin": "None", "configured": None}
            handover.send(end, handover.LISTENING, says, self._listener.fileno(), self._control.fileno())
            assert handover.receive(end) is not None
            for carried in self._given:
                handover.send_connection(end, carried)
                carried.sock.close()
            handover.send(end, handover.END, {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in (self._listener, self._control, *self._clients):
            sock.close()
        if self._agent is not None:
            assert self._agent.stop() == 0
