"""The agent as a service of systemd; tests/service_manager.py says what that is here."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import orjson
import pytest

from sentinel_wasm.client import ClientV1, ClientV2
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.server import listener, systemd

from .conftest import EXAMPLES, BuildWat, has_ended, until
from .listening import ListeningProxy
from .service_manager import ServiceManager
from .upgrading import BLOCKS_WHEN_CONFIGURED, asked, frame_v1, frame_v2, is_blocked

pytestmark = pytest.mark.parallel

C_EXAMPLE = EXAMPLES / "c" / "security.wasm"


def test_it_is_told_of_the_start_of_the_upgrade_and_of_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with ServiceManager(tmp_path) as manager:
        manager.start("--module", C_EXAMPLE, "--socket", path, watchdog_us=200_000)
        first = manager.main_pid
        with ClientV2(path) as client:
            os.kill(first, signal.SIGUSR2)
            manager.wait_until(lambda: manager.main_pid != first)
            assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("a", bad=True)))
        manager.wait_for("STATUS", f"listening, as process {manager.main_pid}")
        manager.said.clear()
        manager.wait_for("WATCHDOG", "1")  # of the new process
        manager.kill(signal.SIGTERM)
        assert any(said.get("STOPPING") == "1" for said in manager.said)
        assert not path.exists()


def test_the_watchdog_is_told_twice_as_often_as_it_wants(tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as manager:
        manager.start("--module", C_EXAMPLE, "--socket", tmp_path / "s", watchdog_us=400_000)
        manager.said.clear()
        began = time.monotonic()
        manager.wait_until(lambda: len(manager.said) >= 5)
        assert all(said == {"WATCHDOG": "1"} for said in manager.said)
        assert 0.7 < time.monotonic() - began < 3


def test_a_socket_that_it_has_opened_is_used_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    other = tmp_path / "other"
    with listener.listen(path) as sock, listener.listen(other) as unused, ServiceManager(tmp_path) as manager:
        given = [("other", unused.fileno()), ("agent", sock.fileno())]
        # A proxy may come before the agent does.
        with ClientV1(path) as client:
            manager.start("--module", C_EXAMPLE, "--socket", path, given=given)
            assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("a", bad=True)))
        manager.kill(signal.SIGTERM)
        assert path.exists()


def test_a_socket_at_another_path_is_an_error_that_says_both(tmp_path: Path) -> None:
    with listener.listen(tmp_path / "there") as sock, ServiceManager(tmp_path) as manager:
        given = [("", sock.fileno())]
        manager.begin("--module", C_EXAMPLE, "--socket", tmp_path / "here", given=given)
        manager.wait_for_end()
        assert str(tmp_path / "there") in manager.log
        assert f"--socket is {tmp_path / 'here'}" in manager.log


def test_descriptors_of_another_process_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "2")
    assert systemd.take_descriptors() == []
    assert "LISTEN_FDS" not in os.environ


@pytest.mark.parametrize(("variable", "value"), [("LISTEN_FDS", "many"), ("LISTEN_PID", "")])
def test_variables_that_make_no_sense_are_none(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv(variable, value)
    assert systemd.take_descriptors() == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_is_said_with_its_moment_and_its_end(tmp_path: Path, workers: str) -> None:
    with ServiceManager(tmp_path) as manager:
        manager.start("--module", C_EXAMPLE, "--socket", tmp_path / "s", "--workers", workers)
        manager.said.clear()
        before = time.monotonic_ns() // 1000
        os.kill(manager.main_pid, signal.SIGHUP)
        manager.wait_for("READY", "1")
        first, *_, last = manager.said
        assert first["RELOADING"] == "1"
        assert before <= int(first["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert last["STATUS"].startswith("listening")


def test_a_manager_that_is_gone_costs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    systemd.ready("x")


# --- the descriptor store


def test_connections_outlive_a_crash(tmp_path: Path, build_wat: BuildWat) -> None:
    """And so does what the proxy's Configure said: it is not sent again."""
    start = ("--module", build_wat(BLOCKS_WHEN_CONFIGURED), "--socket", tmp_path / "s")
    with ServiceManager(tmp_path, store=64) as manager:
        manager.start(*start)
        with ClientV1(tmp_path / "s") as old, ClientV2(tmp_path / "s") as new:
            old.ask(EventKind.CONFIGURE, {"agent_id": "wasm", "config": {"mode": "block everything"}})
            manager.kill(signal.SIGKILL)
            assert sorted(name[:3] for name, _ in manager.stored) == ["con", "v0-", "v2-"]
            manager.start(*start)
            for client in (old, new):
                assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("a")))


def test_encodings_and_reverse_connections_outlive_a_crash(tmp_path: Path) -> None:
    with ListeningProxy(tmp_path / "p") as proxy, ServiceManager(tmp_path, store=64) as manager:
        start = ("--module", C_EXAMPLE, "--socket", tmp_path / "s", "--connect", proxy.path)
        manager.start(*start)
        reverse = proxy.registered()
        with ClientV2(tmp_path / "s", encoding="msgpack") as packed:
            for number in (signal.SIGKILL, signal.SIGTERM):
                for client in (reverse, packed):
                    assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("a", bad=True)))
                manager.kill(number)
                assert sorted(name[:3] for name, _ in manager.stored) == ["m2-", "v2-"]
                manager.start(*start)
            for client in (reverse, packed):
                assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("a", bad=True)))
            with pytest.raises(TimeoutError):
                proxy.registering(0.3)
        reverse.close()
        proxy.registered().close()


def blocked(old: ClientV1, new: ClientV2) -> list[tuple[ClientV1 | ClientV2, bytes]]:
    """The frame of an event that is blocked, for each."""
    return [(old, frame_v1("a", bad=True)), (new, frame_v2("a", bad=True))]


def test_connections_outlive_a_restart_in_the_middle_of_their_frames(tmp_path: Path) -> None:
    start = ("--module", C_EXAMPLE, "--socket", tmp_path / "s")
    with ServiceManager(tmp_path, store=64) as manager:
        manager.start(*start)
        with ClientV1(tmp_path / "s") as old, ClientV2(tmp_path / "s") as new:
            frames = blocked(old, new)
            for client, frame in frames:
                client.send(frame[:77])
            manager.kill(signal.SIGTERM)
            manager.start(*start)
            for client, frame in frames:
                client.send(frame[77:])
                # Nobody has said that the agent drains, or closed anything.
                assert is_blocked(orjson.loads(client.receive()))
            manager.listen()
            assert sorted(name[:3] for name, _ in manager.stored) == ["v0-", "v2-"]


def test_a_connection_that_crashed_in_the_middle_of_a_frame_is_closed(tmp_path: Path) -> None:
    """It is out of step: what comes next is no frame's beginning."""
    start = ("--module", C_EXAMPLE, "--socket", tmp_path / "s")
    with ServiceManager(tmp_path, store=64) as manager:
        manager.start(*start)
        with ClientV1(tmp_path / "s") as old, ClientV2(tmp_path / "s") as new:
            frames = blocked(old, new)
            for client, frame in frames:
                client.ask(EventKind.REQUEST_HEADERS, asked("b"))
                client.send(frame[:77])
            with ClientV1(tmp_path / "s") as other:  # which is read after these
                other.ask(EventKind.REQUEST_HEADERS, asked("c"))
            manager.kill(signal.SIGKILL)
            manager.start(*start)
            for client, frame in frames:
                client.send(frame[77:])
            until(lambda: manager.log.count("connection closed") == 2)
            manager.wait_until(lambda: manager.stored == [])
            for client, _ in frames:
                with pytest.raises(ConnectionError):
                    client.receive()


def test_what_is_closed_is_kept_no_longer(tmp_path: Path) -> None:
    """By the client, or by the agent: then the client must see it, although systemd has a duplicate."""
    with ServiceManager(tmp_path, store=64) as manager:
        manager.start("--module", C_EXAMPLE, "--socket", tmp_path / "s")
        with ClientV2(tmp_path / "s") as broken:
            with ClientV2(tmp_path / "s") as closed:
                manager.wait_until(lambda: len(manager.stored) == 2)
                closed.ask(EventKind.REQUEST_HEADERS, asked("a"))
            broken.send(bytes(4))
            manager.wait_until(lambda: manager.stored == [])
            with pytest.raises(ConnectionError):
                broken.receive()


def test_what_the_store_has_no_room_for_is_drained(tmp_path: Path) -> None:
    start = ("--module", C_EXAMPLE, "--socket", tmp_path / "s")
    with ServiceManager(tmp_path, store=3) as manager:
        manager.start(*start)
        with ClientV2(tmp_path / "s") as first, ClientV2(tmp_path / "s") as second:
            manager.kill(signal.SIGTERM)
            assert orjson.loads(second.receive()) == {"state": 3}
            manager.start(*start)
            assert is_blocked(first.ask(EventKind.REQUEST_HEADERS, asked("a", bad=True)))


def test_kept_connections_go_along_with_an_upgrade(tmp_path: Path) -> None:
    start = ("--module", C_EXAMPLE, "--socket", tmp_path / "s")
    with ServiceManager(tmp_path, store=64) as manager:
        manager.start(*start)
        first = manager.main_pid
        with ClientV2(tmp_path / "s") as client:
            os.kill(first, signal.SIGUSR2)
            manager.wait_until(lambda: manager.main_pid != first)
            until(lambda: has_ended(first))
            manager.kill(signal.SIGKILL)
            manager.start(*start)
            assert is_blocked(client.ask(EventKind.REQUEST_HEADERS, asked("a", bad=True)))
        manager.wait_until(lambda: manager.stored == [])
