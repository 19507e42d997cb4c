"""--workers: real supervisors, real workers; which worker has a connection is read off the log."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import orjson
import pytest

from sentinel_wasm.client import ClientV1, ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType

from .conftest import EXAMPLES, PATIENCE_S, BuildWat, RunningAgent, StartAgent, has_ended, until
from .test_cli import ALLOW, assert_one_line, run

pytestmark = pytest.mark.parallel

C_EXAMPLE = EXAMPLES / "c" / "security.wasm"
_numbers = count()


def pid_of(agent: RunningAgent, worker: int) -> int:
    """Of the one that was ready last."""
    until(lambda: starts_of(agent, worker) > 0)
    return [int(str(line["pid"])) for line in agent.lines("ready") if line["worker"] == worker][-1]


def starts_of(agent: RunningAgent, worker: int) -> int:
    return sum(line["worker"] == worker for line in agent.lines("ready"))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def descriptors_at_rest(pid: int) -> int:
    """When the parent has closed what it gave to workers."""
    number = 0
    while number != (number := descriptors(pid)):
        time.sleep(0.2)
    return number


def worker_of(agent: RunningAgent, client: ClientV1 | ClientV2) -> int:
    """Which worker answers a connection; wants --verbose."""
    identity = f"which-{next(_numbers)}"
    client.ask(EventKind.REQUEST_HEADERS, request_headers(identity))
    line = agent.wait_for_log(f'"correlation_id":"{identity}"')
    return int(orjson.loads(line)["worker"])


def connect_to(agent: RunningAgent, worker: int) -> ClientV1:
    """A connection that this worker gets: the supervisor hears a little later of what closes or is ready."""
    end = time.monotonic() + PATIENCE_S
    while True:
        client = agent.v1()
        if worker_of(agent, client) == worker:
            return client
        client.close()
        assert time.monotonic() < end


# --- dealing


def test_one_worker_is_the_agent_itself(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE, "--workers", "1")
    assert children(agent.process.pid) == []
    assert '"worker"' not in agent.log


def test_the_supervisor_has_no_engine(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE, environment={"WASM_WORKERS": "2"}, warm=False)
    assert "wasmtime" not in Path(f"/proc/{agent.process.pid}/maps").read_text()
    workers = children(agent.process.pid)
    assert sorted(workers) == sorted(pid_of(agent, number) for number in (1, 2))
    for pid in workers:
        assert "wasmtime" in Path(f"/proc/{pid}/maps").read_text()


def test_many_connections_are_answered_by_all_workers(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE, "--workers", "3", "--verbose")
    clients = [agent.v2() if number % 2 else agent.v1() for number in range(12)]
    for turn in range(10):
        for number, client in enumerate(clients):
            bad = (turn + number) % 2
            client.send_event(
                EventKind.REQUEST_HEADERS,
                request_headers(
                    f"{turn}-{number}",
                    uri="/../etc/passwd" if bad else "/",
                    headers={"User-Agent": ["Mozilla/5.0"], "Accept": ["*/*"]},
                ),
            )
        for number, client in enumerate(clients):
            answer = orjson.loads(client.receive())
            assert ("block" in answer["decision"]) is bool((turn + number) % 2), answer
            if isinstance(client, ClientV2):
                assert answer["audit"]["custom"] == {"correlation_id": f"{turn}-{number}"}
    assert Counter(worker_of(agent, client) for client in clients) == {1: 4, 2: 4, 3: 4}
    for client in clients:
        client.close()


def test_four_connections_go_to_four_workers(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE, "--workers", "4", "--verbose")
    clients = [agent.v2() for _ in range(4)]
    assert sorted(worker_of(agent, client) for client in clients) == [1, 2, 3, 4]
    for client in clients:
        client.close()


def test_closed_connections_make_room(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE, "--workers", "2", "--verbose")
    clients = [agent.v1() for _ in range(6)]
    for client in clients:
        if worker_of(agent, client) == 1:
            client.close()

    def three_go_to_1() -> bool:
        """The supervisor hears of the closed ones a little later."""
        new = [agent.v1() for _ in range(3)]
        workers = [worker_of(agent, client) for client in new]
        for client in new:
            client.close()
        return workers == [1, 1, 1]

    until(three_go_to_1)
    for client in clients:
        client.close()


# --- workers that die


def test_a_killed_worker_is_replaced_and_costs_its_own_connections_only(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE, "--workers", "2", "--verbose")
    with agent.v2() as lost, agent.v2() as kept:
        assert (worker_of(agent, lost), worker_of(agent, kept)) == (1, 2)
        os.kill(pid_of(agent, 1), signal.SIGKILL)
        with pytest.raises(ConnectionError):
            lost.receive()
        end = time.monotonic() + PATIENCE_S
        while starts_of(agent, 1) < 2:
            assert time.monotonic() < end, agent.log
            # Meanwhile the other one serves: what it had, and what comes.
            assert worker_of(agent, kept) == 2
            with agent.v1() as new:
                assert worker_of(agent, new) in (1, 2)
        died = orjson.loads(agent.wait_for_log("worker died"))
        assert (died["worker"], died["reason"], died["connections_lost"]) == (1, "killed by SIGKILL", 1)
        connect_to(agent, 1).close()
        assert worker_of(agent, kept) == 2


def test_a_connection_that_a_dying_worker_did_not_take_goes_to_another(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE, "--workers", "2", "--verbose")
    with agent.v1() as first:
        assert worker_of(agent, first) == 1
        before = descriptors_at_rest(agent.process.pid)
        os.kill(pid_of(agent, 2), signal.SIGSTOP)
        with agent.v1() as client:
            client.send_event(EventKind.REQUEST_HEADERS, request_headers("not lost"))
            until(lambda: descriptors(agent.process.pid) == before + 1)
            os.kill(pid_of(agent, 2), signal.SIGKILL)
            assert orjson.loads(client.receive())["version"] == 1
            assert '"correlation_id":"not lost"' in agent.wait_for_log("not lost")


def test_connections_wait_while_there_is_no_worker(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE, "--workers", "2")
    pids = [pid_of(agent, number) for number in (1, 2)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(agent.lines("worker died")) == 2)
    with ClientV2(agent.socket, timeout_s=PATIENCE_S) as client:
        answer = client.ask(EventKind.REQUEST_HEADERS, request_headers("a"))
        assert answer["audit"]["custom"] == {"correlation_id": "a"}


def test_a_worker_that_dies_again_at_once_is_replaced_after_a_pause(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE, "--workers", "2")
    for deaths, number in ((1, signal.SIGKILL), (2, signal.SIGRTMIN + 1)):  # the second has no name
        os.kill(pid_of(agent, 2), number)
        until(lambda deaths=deaths: starts_of(agent, 2) == deaths + 1)  # type: ignore[misc]
    died = [(line["reason"], line["next_in_s"]) for line in agent.lines("worker died")]
    assert died == [("killed by SIGKILL", 0.0), (f"killed by signal {signal.SIGRTMIN + 1}", 1.0)]


def test_a_worker_that_dies_starts_again_with_the_module_of_the_others(
    start_agent: StartAgent, tmp_path: Path
) -> None:
    """Whatever the file has become: only a reload reads it."""
    wasm = tmp_path / "filter.wasm"
    shutil.copy(C_EXAMPLE, wasm)
    agent = start_agent(wasm, "--workers", "2", "--verbose")
    with agent.v2() as first, agent.v2() as kept:
        assert (worker_of(agent, first), worker_of(agent, kept)) == (1, 2)
        wasm.write_text("<html>")
        os.kill(pid_of(agent, 1), signal.SIGKILL)
        assert worker_of(agent, kept) == 2
        until(lambda: starts_of(agent, 1) == 2)


def test_v1_event_that_waited_for_a_worker_too_long_is_not_answered(start_agent: StartAgent) -> None:
    """Its proxy has given it up, and would take the answer for the next request's."""
    agent = start_agent(C_EXAMPLE, "--workers", "2", "--proxy-timeout-ms", "500")
    pids = [pid_of(agent, number) for number in (1, 2)]
    before = descriptors_at_rest(agent.process.pid)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    with agent.v1() as old, agent.v1() as idle, ThreadPoolExecutor() as pool:
        old.send_event(EventKind.REQUEST_HEADERS, request_headers("late"))
        shaking = pool.submit(agent.v2)
        until(lambda: descriptors(agent.process.pid) == before + 3)
        time.sleep(1)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        with pytest.raises(ConnectionError):
            old.receive()
        assert "an answer took" in agent.wait_for_log("connection closed")
        with shaking.result(PATIENCE_S) as new:
            new.ask(EventKind.REQUEST_HEADERS, request_headers("a"))
        idle.ask(EventKind.REQUEST_HEADERS, request_headers("b"))


def test_a_supervisor_without_descriptors_accepts_later(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE, "--workers", "2")
    limits = resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    with agent.v1() as client:
        client.send_event(EventKind.REQUEST_HEADERS, request_headers("a"))
        agent.wait_for_log("no connection is accepted")
        resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, limits)
        assert orjson.loads(client.receive())["version"] == 1


# --- the start


def test_a_bad_module_is_the_same_line_as_without_workers(tmp_path: Path) -> None:
    path = tmp_path / "page.wasm"
    path.write_text("<html>")
    alone = run("--module", path, "--socket", tmp_path / "s")
    # That its stderr has ended says that no worker is left.
    done = run("--module", path, "--socket", tmp_path / "s", "--workers", "3")
    assert_one_line(done, 1, "page.wasm", "not a WebAssembly binary")
    assert done.stderr == alone.stderr
    assert not (tmp_path / "s").exists()


def test_a_module_that_takes_too_long_to_compile_is_one_line(tmp_path: Path) -> None:
    program = (
        "import sentinel_wasm.cli.agent, sentinel_wasm.server.process as process\n"
        "path, serve = process._PROGRAM.split(';', 2)[1:]\n"
        "process._PROGRAM = ';'.join(['import sys', path,\n"
        "    'import sentinel_wasm.server.run; sentinel_wasm.server.run._COMPILE_S = 0.05', serve])\n"
        "sentinel_wasm.cli.agent.main()\n"
    )
    options: list[str | Path] = [
        "--module",
        EXAMPLES / "go" / "security.wasm",
        "--socket",
        tmp_path / "s",
        "--workers",
        "2",
    ]
    options += ["--cache-dir", "/dev/null"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, options)], capture_output=True, text=True, timeout=60
    )
    assert_one_line(done, 1, "compiling it took more than 0.05 s")


def test_a_socket_in_use_is_one_line_and_the_first_agent_goes_on(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    agent = start_agent(build_wat(ALLOW), "--workers", "2")
    done = run("--module", C_EXAMPLE, "--socket", agent.socket, "--workers", "2")
    assert done.returncode == 1
    assert "sentinel-wasm-agent: another agent is listening" in done.stderr.splitlines()[-1]
    with agent.v1() as client:
        assert client.ask(EventKind.REQUEST_HEADERS, request_headers("a"))["decision"] == "allow"


@pytest.mark.parametrize("number", ["0", "65", "all"])
def test_a_bad_number_of_workers_is_one_line_and_status_2(number: str) -> None:
    assert_one_line(run("--module", "m.wasm", "--workers", number), 2, "--workers", number)
    done = run("--module", "m.wasm", environment={"WASM_WORKERS": number})
    assert_one_line(done, 2, "WASM_WORKERS", number)


# --- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_with_status_0_when_events_are_answered(
    start_agent: StartAgent, number: signal.Signals
) -> None:
    agent = start_agent(C_EXAMPLE, "--workers", "2", "--verbose")
    pids = [pid_of(agent, worker) for worker in (1, 2)]
    with agent.v2() as new, agent.v1() as old:
        assert (worker_of(agent, new), worker_of(agent, old)) == (1, 2)
        new.send_event(EventKind.REQUEST_HEADERS, request_headers("in-flight"))
        # As systemd and a terminal do: to each process.
        for pid in pids:
            os.kill(pid, number)
        start = time.monotonic()
        assert agent.stop(number) == 0
        assert time.monotonic() - start < 10
        assert orjson.loads(new.receive())["audit"]["custom"] == {"correlation_id": "in-flight"}
        assert orjson.loads(new.receive()) == {"state": 3}
        assert new.frame_type == FrameType.HEALTH_STATUS
        for client in (new, old):
            with pytest.raises(ConnectionError):
                client.receive()
    assert all(map(has_ended, pids))
    assert not agent.socket.exists()
    assert agent.lines("worker died") == []
    assert orjson.loads(agent.log.splitlines()[-1])["event"] == "stopped"


def test_a_worker_that_does_not_end_is_killed(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE, "--workers", "2")
    pids = [pid_of(agent, worker) for worker in (1, 2)]
    os.kill(pids[0], signal.SIGSTOP)
    assert agent.stop() == 0
    assert "does not end" in agent.log
    until(lambda: all(map(has_ended, pids)))
    assert not agent.socket.exists()


def test_a_signal_before_the_agent_listens_ends_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sentinel_wasm.cli.agent", "--workers", "2", "--socket", tmp_path / "s"]
    with subprocess.Popen(
        [*map(str, command), "--module", str(EXAMPLES / "go" / "security.wasm"), "--cache-dir", "/dev/null"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        until(lambda: len(children(process.pid)) == 2)
        process.terminate()
        log = process.stderr.read()
    assert process.returncode == 0, log
    assert "ready" not in log
    assert "Traceback" not in log
    assert not (tmp_path / "s").exists()


def test_workers_end_when_the_supervisor_is_killed(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE, "--workers", "2", "--verbose")
    pids = [pid_of(agent, worker) for worker in (1, 2)]
    with agent.v2() as client:
        worker_of(agent, client)
        agent.stop(signal.SIGKILL)
        until(lambda: all(map(has_ended, pids)))
        assert orjson.loads(client.receive()) == {"state": 3}
    assert len(agent.lines("stopped")) == 2
