"""--connect: the agent registers with proxies that listen for agents."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import uvloop
from structlog.testing import capture_logs

from sentinel_wasm.client import event_v2
from sentinel_wasm.errors import UserError
from sentinel_wasm.metrics import series
from sentinel_wasm.protocol import handshake
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType, encode_v2
from sentinel_wasm.server import reverse
from sentinel_wasm.server.handover import Carried
from sentinel_wasm.server.reverse import LONG_S, Reverse
from sentinel_wasm.settings import Settings

from .conftest import EXAMPLES, BuildWat, RunningAgent, StartAgent, until
from .listening import WELCOME, ListeningProxy, Registering, answer_of
from .scraping import LOCAL, Scraped
from .test_cli import run
from .test_msgpack import TRAPS
from .test_workers import pid_of
from .upgrading import Upgrading, asked, is_blocked

pytestmark = pytest.mark.parallel

C_EXAMPLE = EXAMPLES / "c" / "security.wasm"
RESULTS = ("ok", "refused", "failed")


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[ListeningProxy]:
    with ListeningProxy(tmp_path / "p") as proxy:
        yield proxy


# --- keeping connections up


class Keeping:
    """A `Reverse`, on a loop in a thread; its connections come to `carried`."""

    def __init__(self, *paths: Path, token_file: Path | None = None) -> None:
        self.carried: list[Carried] = []
        settings = Settings(module=Path("m"), connect=paths, connect_token_file=token_file)
        self.reverse = Reverse(settings, self._adopt, self._live)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._loop.call_soon_threadsafe(self.reverse.start)

    async def _adopt(self, carried: Carried) -> None:
        self.carried.append(carried)

    def _live(self) -> Counter[str]:
        return Counter(one.state.proxy for one in self.carried)

    def lose(self, lived_s: float) -> None:
        carried = self.carried.pop()
        carried.sock.close()
        self._loop.call_soon_threadsafe(self.reverse.lost, carried.state.proxy, lived_s)

    def sample(self, name: str, path: Path, **labels: str) -> float:
        return self.reverse.samples()[series(f"reverse_{name}", socket=str(path), **labels)]

    def attempts(self, path: Path) -> list[float]:
        return [self.sample("registrations_total", path, result=result) for result in RESULTS]

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self.reverse.stop)

    def __enter__(self) -> Keeping:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(asyncio.sleep(0))  # tasks that were ended end
        self._loop.close()
        for carried in self.carried:
            carried.sock.close()


def test_an_agent_says_who_it_is_and_loses_nothing_that_comes_behind_the_answer(
    proxy: ListeningProxy,
) -> None:
    event = event_v2(EventKind.REQUEST_HEADERS, asked("a"))
    with Keeping(proxy.path) as keeping:
        agent = proxy.registering()
        assert agent.request == {
            "protocol_version": 2,
            "agent_id": handshake.AGENT_ID,
            "capabilities": handshake.CAPABILITIES,
            "auth_token": None,
            "metadata": None,
        }
        agent.welcome(event[:20])
        until(lambda: len(keeping.carried) == 1)
        state = keeping.carried[0].state
        assert (state.protocol, state.is_shaken, state.encoding) == (2, True, "json")
        assert (state.unread, state.proxy) == (event[:20], str(proxy.path))
        assert keeping.attempts(proxy.path) == [1, 0, 0]
        assert keeping.sample("connections_open", proxy.path) == 1
        assert keeping.sample("connections_wanted", proxy.path) == 1
        agent.close()


def test_a_socket_that_is_named_twice_gets_two_connections_and_no_third(tmp_path: Path) -> None:
    with (
        ListeningProxy(tmp_path / "a") as first,
        ListeningProxy(tmp_path / "b") as second,
        Keeping(first.path, second.path, first.path) as keeping,
    ):
        agents = [first.registered(), first.registered(), second.registered()]
        until(lambda: len(keeping.carried) == 3)
        for proxy in (first, second):
            with pytest.raises(TimeoutError):
                proxy.registering(0.3)
        for agent in agents:
            agent.close()


def test_a_lost_connection_is_opened_again(proxy: ListeningProxy) -> None:
    with Keeping(proxy.path) as keeping:
        for _ in range(3):
            proxy.registered().close()
            until(lambda: len(keeping.carried) == 1)
            keeping.lose(LONG_S)
        proxy.registered().close()
        assert keeping.sample("connections_lost_total", proxy.path) == 3
        assert keeping.attempts(proxy.path)[1:] == [0, 0]


def test_a_proxy_that_comes_late_or_again_is_found(tmp_path: Path) -> None:
    path = tmp_path / "p"
    with Keeping(path) as keeping:
        until(lambda: keeping.attempts(path)[2] > 1)
        with ListeningProxy(path) as proxy:
            proxy.registered().close()
            until(lambda: len(keeping.carried) == 1)
        keeping.lose(LONG_S)
        failed = keeping.attempts(path)[2]
        until(lambda: keeping.attempts(path)[2] > failed)
        with ListeningProxy(path) as proxy:
            proxy.registered().close()


def test_after_the_stop_none_is_opened(proxy: ListeningProxy) -> None:
    with Keeping(proxy.path) as keeping:
        agent = proxy.registering()
        keeping.stop()
        with pytest.raises(ConnectionError):
            agent.receive()
        with pytest.raises(TimeoutError):
            proxy.registering(0.3)
        agent.close()


def refuses(agent: Registering) -> None:
    agent.sock.sendall(answer_of({**WELCOME, "success": False, "error": "Registration rejected"}))


def test_a_refusal_is_logged_once_with_what_the_proxy_says(proxy: ListeningProxy) -> None:
    with capture_logs() as logs, Keeping(proxy.path) as keeping:
        for _ in range(3):
            agent = proxy.registering()
            refuses(agent)
            agent.close()
        until(lambda: keeping.attempts(proxy.path) == [0, 3, 0])
        proxy.registered().close()
        until(lambda: len(keeping.carried) == 1)
    said = [(line["log_level"], line.get("reason"), line["socket"]) for line in logs]
    assert said == [("error", "Registration rejected", str(proxy.path)), ("info", None, str(proxy.path))]
    assert logs[1]["proxy_version"] == "0.6.45"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (answer_of({"success": False}), "the proxy does not say why"),
        (answer_of({"success": False, "error": 5}), "error is an integer, expected a string"),
        (answer_of({"success": "yes"}), "success is a string, expected a boolean"),
        (answer_of({}), "success is absent or null, expected a boolean"),
        (answer_of({**WELCOME, "connection_id": 1}), "connection_id is an integer, expected a string"),
        (answer_of([]), "the answer is not an object"),
        (encode_v2(2, b"hello"), "the answer is not JSON: "),
        (encode_v2(2, b"[" * 5000), "the answer is not JSON: "),
        (encode_v2(FrameType.PING, b"{}"), "its answer is a frame of type 0x41, expected 0x02"),
        (b"\0\0\0\0", "a frame of 0 bytes"),
        (b"\xff\xff\xff\xff", "a frame of 4294967295 bytes"),
        (b"\0\xff\0\0\2" + bytes(100_000), "its answer has over 65536 bytes"),
        (b"", "the proxy closed the connection without an answer"),
        (answer_of(WELCOME)[:-1], "the proxy closed the connection without an answer"),
    ],
)
def test_a_broken_answer_is_said_and_tried_again(proxy: ListeningProxy, answer: bytes, reason: str) -> None:
    with capture_logs() as logs, Keeping(proxy.path) as keeping:
        agent = proxy.registering()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            agent.sock.sendall(answer)
        agent.sock.shutdown(socket.SHUT_WR)
        until(lambda: sum(keeping.attempts(proxy.path)) == 1)
        agent.close()
        proxy.registered().close()
        until(lambda: len(keeping.carried) == 1)
    assert str(logs[0]["reason"]).startswith(reason)


def test_a_silent_proxy_is_left_and_tried_again(
    proxy: ListeningProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reverse, "_ANSWER_S", 0.1)
    with capture_logs() as logs, Keeping(proxy.path) as keeping:
        silent = proxy.registering()
        with pytest.raises(ConnectionError):
            silent.receive()
        silent.close()
        proxy.registering().close()
        assert keeping.attempts(proxy.path)[2] > 0
    assert logs[0]["reason"] == "no answer within 0.1 s"


def test_a_socket_that_takes_no_more_is_tried_again(tmp_path: Path) -> None:
    """A full backlog, which is an error of its own for a Unix socket that does not wait."""
    path = tmp_path / "p"
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as first:
        full.bind(str(path))
        full.listen(0)
        first.connect(str(path))
        with capture_logs() as logs, Keeping(path) as keeping:
            until(lambda: keeping.attempts(path)[2] > 0)
    assert logs[0]["reason"] == os.strerror(11)


def test_pauses_double_up_to_half_a_minute_and_begin_anew_after_a_long_life() -> None:
    proxy = reverse._Proxy("/p", wanted=1)
    assert proxy.pause_s() == 0

    def bound_s() -> float:
        """Anything up to it is as likely: of so many one is near."""
        pauses = [proxy.pause_s() for _ in range(2000)]
        assert min(pauses) < max(pauses) / 50
        return max(pauses)

    with capture_logs() as logs:
        for expected_s in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30):
            proxy.failed("failed", "why")
            assert bound_s() == pytest.approx(expected_s, rel=0.05)
        proxy.registered(handshake.Registered("", ""))
        assert bound_s() == pytest.approx(30, rel=0.05)
        proxy.lost(LONG_S)
        assert bound_s() == pytest.approx(0.1, rel=0.05)
        # One too many: registered, and closed at once.
        for expected_s in (0.2, 0.4, 0.8):
            proxy.registered(handshake.Registered("", ""))
            proxy.lost(0.01)
            assert bound_s() == pytest.approx(expected_s, rel=0.05)
        proxy.registered(handshake.Registered("", ""))
        proxy.lost(LONG_S / 2)
        assert bound_s() == pytest.approx(1.6, rel=0.05)
        proxy.registered(handshake.Registered("", ""))
    assert [line.get("reason", line["event"]) for line in logs] == [
        "why",
        "registered with a proxy",
        "a connection of --connect is lost",
        "registered with a proxy",
        reverse._AT_ONCE,
        "a connection of --connect is lost",
        "registered with a proxy",
    ]


# --- the token


def token(tmp_path: Path, text: bytes = b"s3cret\n", mode: int = 0o600) -> Path:
    path = tmp_path / "token"
    path.write_bytes(text)
    path.chmod(mode)
    return path


def test_the_token_is_read_at_each_registration(proxy: ListeningProxy, tmp_path: Path) -> None:
    path = token(tmp_path, mode=0o640)
    with capture_logs() as logs, Keeping(proxy.path, token_file=path) as keeping:
        agent = proxy.registering()
        assert agent.request["auth_token"] == "s3cret"
        path.write_text(" another ")
        refuses(agent)
        agent.close()
        agent = proxy.registering()
        assert agent.request["auth_token"] == "another"
        path.chmod(0o644)
        refuses(agent)
        agent.close()
        until(lambda: keeping.attempts(proxy.path)[2] > 0)
        path.chmod(0o600)
        proxy.registered().close()
        until(lambda: len(keeping.carried) == 1)
    reasons = [line["reason"] for line in logs if "reason" in line]
    assert reasons == [
        "Registration rejected",
        f"{path} has the token of --connect and everybody can read it: chmod o-r it",
    ]
    assert "s3cret" not in str(logs)


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        (b"", 0o600, "expected ASCII text of up to 4096 bytes"),
        (b"\n", 0o600, "expected ASCII text of up to 4096 bytes"),
        (b"\xc3\xa9", 0o600, "expected ASCII text of up to 4096 bytes"),
        (b"x" * 4097, 0o600, "expected ASCII text of up to 4096 bytes"),
        (b"x", 0o604, "everybody can read it: chmod o-r"),
    ],
)
def test_a_file_that_is_no_token_ends_the_start(tmp_path: Path, text: bytes, mode: int, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Keeping(tmp_path / "p", token_file=token(tmp_path, text, mode))


def test_a_missing_token_or_one_that_is_no_file_ends_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir()
    before = os.listdir("/proc/self/fd")
    for name, reason in (
        ("missing", "No such file"),
        ("fifo", "is not a file"),
        ("folder", "Is a directory"),
    ):
        with pytest.raises(UserError, match=reason):
            Keeping(tmp_path / "p", token_file=tmp_path / name)
    assert set(os.listdir("/proc/self/fd")) <= set(before)


def test_the_agent_says_so_in_one_line(tmp_path: Path) -> None:
    done = run(
        "--module", C_EXAMPLE, "--socket", tmp_path / "s", "--connect", tmp_path / "p",
        "--connect-token-file", tmp_path / "missing", "--workers", "2",
    )  # fmt: skip
    assert done.returncode == 1
    assert (
        f"cannot read the token of --connect in {tmp_path}/missing: No such file or directory" in done.stderr
    )


# --- agents


def counted(agent: RunningAgent, proxy: ListeningProxy) -> list[float]:
    page = Scraped(agent)
    names = ("connections_open", "connections_lost_total")
    return [page.value(f"reverse_{name}", socket=str(proxy.path)) for name in names]


def assert_answers(agent: Registering, identity: str) -> None:
    for bad in (False, True):
        answer = agent.ask(EventKind.REQUEST_HEADERS, asked(identity, bad=bad))
        assert answer["audit"]["custom"] == {"correlation_id": identity}
        assert is_blocked(answer) is bad


def assert_drained(agent: Registering) -> None:
    """The proxy is told, and then it is the end."""
    assert orjson.loads(agent.receive()) == {"state": 3}
    assert agent.frames.frame_type == FrameType.HEALTH_STATUS
    with pytest.raises(ConnectionError):
        agent.receive()
    agent.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_life_of_reverse_connections(
    start_agent: StartAgent, tmp_path: Path, proxy: ListeningProxy, workers: str
) -> None:
    """Events, a loss, a reload, an upgrade in place, a loss after that, the end."""
    path = token(tmp_path)
    with ListeningProxy(tmp_path / "q") as other:
        agent = start_agent(
            C_EXAMPLE,
            *LOCAL,
            *("--workers", workers, "--connect-token-file", str(path)),
            *("--connect", str(proxy.path), "--connect", str(other.path), "--connect", str(proxy.path)),
        )
        with Upgrading(agent) as upgrading:
            connections = [proxy.registered(), proxy.registered(), other.registered()]
            assert {one.request["auth_token"] for one in connections} == {"s3cret"}
            for number, one in enumerate(connections):
                assert_answers(one, f"first-{number}")
            with agent.v2() as accepted:
                assert is_blocked(accepted.ask(EventKind.REQUEST_HEADERS, asked("own", bad=True)))
            until(lambda: counted(agent, proxy) == [2, 0])

            connections.pop(0).close()
            connections.insert(0, proxy.registered())
            until(lambda: counted(agent, proxy) == [2, 1])
            os.kill(agent.process.pid, signal.SIGHUP)
            agent.wait_for_log('"event":"reload')
            for number, one in enumerate(connections):
                assert_answers(one, f"reloaded-{number}")

            half = event_v2(EventKind.REQUEST_HEADERS, asked("half", bad=True))
            connections[0].sock.sendall(half[:50])
            assert upgrading.upgrade()["connections"] == 3
            connections[0].sock.sendall(half[50:])
            assert is_blocked(orjson.loads(connections[0].receive()))
            for number, one in enumerate(connections):
                assert_answers(one, f"upgraded-{number}")
            with pytest.raises(TimeoutError):
                proxy.registering(0.3)
            connections.pop(0).close()
            connections.insert(0, proxy.registered())
            assert_answers(connections[0], "again")
            os.kill(upgrading.pid, signal.SIGTERM)
            for one in connections:
                assert_drained(one)
            with pytest.raises(TimeoutError):
                proxy.registering(0.3)


def test_what_a_dead_worker_had_is_opened_again(start_agent: StartAgent, proxy: ListeningProxy) -> None:
    agent = start_agent(
        C_EXAMPLE, *LOCAL, "--workers", "2", "--connect", str(proxy.path), "--connect", str(proxy.path)
    )
    connections = [proxy.registered(), proxy.registered()]
    for one in connections:
        assert_answers(one, "first")
    os.kill(pid_of(agent, 1), signal.SIGKILL)
    again = proxy.registered()
    assert_answers(again, "again")
    until(lambda: counted(agent, proxy) == [2, 1])
    with pytest.raises(TimeoutError):
        proxy.registering(0.3)
    for one in (*connections, again):
        one.close()


def test_an_unhealthy_agent_says_so_where_it_registers(
    start_agent: StartAgent, build_wat: BuildWat, proxy: ListeningProxy
) -> None:
    start_agent(build_wat(TRAPS), "--connect", str(proxy.path))
    first = proxy.registered()
    first.sock.sendall(10 * event_v2(EventKind.REQUEST_HEADERS, asked("traps")))
    while orjson.loads(first.receive()) != {"state": 2}:
        pass
    first.close()
    second = proxy.registered()
    assert orjson.loads(second.receive()) == {"state": 2}
    assert second.frames.frame_type == FrameType.HEALTH_STATUS
    second.close()
