"""The log: what its lines have, how many there are, and that no event waits for who reads it."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from sentinel_wasm import logs, stderr
from sentinel_wasm._hostcalls import LOG
from sentinel_wasm.agent import Agent
from sentinel_wasm.client import ClientV1, ClientV2, request_headers
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.output import BYTES_A_SECOND, GuestOutput
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import encode_v1
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.settings import Settings

from .conftest import PATIENT, BuildWat, RunningAgent, StartAgent, until
from .guest import wat
from .scraping import LOCAL, Scraped
from .test_workers import children, pid_of, starts_of

pytestmark = pytest.mark.parallel

# Clears the screen and writes a line of its own into the log.
FORGERY = b"\x1b[2J\x1b[31mforged"
ALLOW = wat.module(wat.says('{"decision":"allow","tags":["a"],"rule_ids":["r-1"]}'))
TRAP = wat.module(wat.hook("unreachable"))
LOGS = wat.imported("sentinel.log", "i32 i32 i32")


def says_in_the_log(text: bytes) -> str:
    call = f"(call $log (i32.const 3) (i32.const 2048) (i32.const {len(text)}))"
    return wat.module(wat.data(2048, text), wat.hook(f"{call} (i64.const 0)"), imports=LOGS)


def ask(client: ClientV1 | ClientV2, identity: str) -> dict[str, Any]:
    return client.ask(EventKind.REQUEST_HEADERS, request_headers(identity))


# --- how lines look


def test_guest_cannot_command_the_terminal(build_wat: BuildWat, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with agent_that_logs_to(theirs, build_wat(says_in_the_log(FORGERY)), tmp_path / "s") as agent:
        os.close(theirs)
        shown = read_until(ours, b"listening")
        with ClientV2(tmp_path / "s") as client:
            ask(client, "id")
        shown = read_until(ours, b"forged")
        agent.terminate()
        assert agent.wait(10) == 0
    os.close(ours)
    assert rb"\x1b[2J\x1b[31mforged" in shown
    assert FORGERY not in shown


def agent_that_logs_to(descriptor: int, wasm: Path, socket: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "sentinel_wasm.cli.agent",
        "--module",
        wasm,
        "--socket",
        socket,
        *options,
    ]
    return subprocess.Popen([*map(str, command)], stderr=descriptor, env={**os.environ, **PATIENT})


def read_until(descriptor: int, text: bytes) -> bytes:
    shown = b""
    end = time.monotonic() + 30
    while text not in shown:
        assert select.select([descriptor], [], [], max(0, end - time.monotonic()))[0], shown
        data = os.read(descriptor, 4096)
        assert data, shown
        shown += data
    return shown


def read_line_with(descriptor: int, text: bytes) -> dict[str, Any]:
    shown = read_until(descriptor, text)
    shown += b"" if shown.endswith(b"\n") else read_until(descriptor, b"\n")
    return next(orjson.loads(line) for line in shown.splitlines() if text in line)


def test_json_on_a_terminal_where_that_is_asked_for(build_wat: BuildWat, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    options = ("--log-format", "json")
    with agent_that_logs_to(theirs, build_wat(ALLOW), tmp_path / "s", *options) as agent:
        os.close(theirs)
        line = read_until(ours, b"\n").splitlines()[0]
        agent.terminate()
    os.close(ours)
    assert orjson.loads(line)["event"] == "listening"


def test_text_in_a_file_has_no_colours(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(ALLOW), environment={"WASM_LOG_FORMAT": "text"})
    assert "[info" in agent.log
    assert not agent.log.startswith("{")
    assert "\x1b" not in agent.log


def test_a_line_has_an_end_and_is_utf_8() -> None:
    event = logs.bounded(None, "info", {"a": "x" * 10_000, "b": "\udcff", "c": ["y"] * 60, "d": 1, "e": "é"})
    assert (len(event["a"]), event["b"], len(event["c"]), event["d"], event["e"]) == (
        8194,
        "\\udcff",
        51,
        1,
        "é",
    )
    assert (event["a"][-1], event["c"][-1]) == ("…", "…")


# --- lines of failures


@pytest.mark.parametrize(("option", "answered"), [("--fail-open", "allow"), ("--no-fail-open", "block 500")])
def test_a_failure_says_all_that_one_looks_for(
    start_agent: StartAgent, build_wat: BuildWat, option: str, answered: str
) -> None:
    agent = start_agent(build_wat(TRAP), option)
    module = agent.lines("listening")[0]["module"]
    with agent.v2() as client:
        ask(client, "find-me")
    with agent.v1() as old:
        old.send(encode_v1(b'{"version":1}'))
        old.receive()
    agent.wait_for_log("not understood")
    (failed,), (broken,) = agent.lines("module failed"), agent.lines("event not understood")
    for line in (failed, broken):
        del line["timestamp"]
    common = {"level": "error", "module": module, "answered": answered}
    assert len(module) == 12
    assert failed == common | {
        "event": "module failed",
        "kind": "trap",
        "hook": "on_request_headers",
        "correlation_id": "find-me",
        "reason": "trap: unreachable in on_request_headers",
    }
    assert broken == common | {
        "event": "event not understood",
        "kind": "event",
        "hook": "none",
        "correlation_id": None,
        "reason": "event_type is not a string",
    }


def test_a_flood_of_failures_is_a_few_lines_that_count_the_rest(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    agent = start_agent(build_wat(TRAP), "--isolation", "request", *LOCAL)
    began = time.monotonic()
    with agent.v1() as client:
        for number in range(300):
            ask(client, f"{number}")
    until(lambda: agent.times_said("module failed") == 300)
    lines = agent.lines("module failed")
    kinds = {str(line["kind"]) for line in lines}
    most = logs.BURST + 1 + time.monotonic() - began
    assert all(logs.BURST <= sum(line["kind"] == kind for line in lines) <= most for kind in kinds)
    page = Scraped(agent)
    assert sum(page.value("errors_total", kind=kind) for kind in kinds) == 300
    assert page.value("log_lines_dropped_total", why="rate") == 300 - len(lines)


def test_the_last_line_that_was_left_out_comes_by_itself() -> None:
    said: list[dict[str, Any]] = []

    async def flood() -> None:
        throttle = logs.Throttle()
        for number in range(logs.BURST + 5):
            throttle.say("a", lambda event, **fields: said.append(fields), "event", number=number)
        throttle.say("b", lambda event, **fields: said.append(fields), "event", number=-1)
        assert said == [*({"number": number} for number in range(logs.BURST)), {"number": -1}]
        while len(said) < logs.BURST + 2:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(flood(), 10))
    assert said[-1] == {"number": logs.BURST + 4, "left_out": 4}


def test_without_a_loop_the_next_line_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, Any]] = []
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    throttle = logs.Throttle()
    for _ in range(logs.BURST + 5):
        throttle.say("a", lambda event, **fields: said.append(fields), "event")
    now[0] += 1
    throttle.say("a", lambda event, **fields: said.append(fields), "event")
    assert said == [{}] * logs.BURST + [{"left_out": 5}]


# --- decisions


def wait_for_lines(agent: RunningAgent, event: str, count: int) -> None:
    until(lambda: len(agent.lines(event)) == count)


def decided(agent: RunningAgent) -> list[str]:
    return [line["correlation_id"] for line in agent.lines("decided")]


def test_a_share_of_requests_is_logged_with_all_their_events(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    both = wat.module(
        wat.says('{"decision":"block","tags":["t"],"rule_ids":["r"]}'),
        wat.says("{}", "on_response_headers", at=20_000),
    )
    agents = [start_agent(build_wat(both), "--log-decisions", share) for share in ("0.3", "0.1")]
    ids = [f"id-{number}" for number in range(400)]
    found = []
    for agent in agents:
        with agent.v2() as client:
            for identity in ids:
                ask(client, identity)
                response = {"correlation_id": identity, "status": 200, "headers": {}}
                client.ask(EventKind.RESPONSE_HEADERS, response)
        agent.stop()
        lines = agent.lines("decided")
        assert [line["correlation_id"] for line in lines[::2]] == [
            line["correlation_id"] for line in lines[1::2]
        ]
        assert {line["hook"] for line in lines[1::2]} == {"on_response_headers"}
        found.append({line["correlation_id"] for line in lines})
    # Every process chooses in the same way: a smaller share is of the same requests.
    assert found[0] > found[1]
    assert 80 < len(found[0]) < 160
    assert 15 < len(found[1]) < 70
    line = agents[0].lines("decided")[0]
    assert 0 <= line.pop("took_us") < 1_000_000
    assert (
        line.items()
        >= {
            "hook": "on_request_headers",
            "decision": "block",
            "status": 403,
            "tags": ["t"],
            "rule_ids": ["r"],
            "module": agents[0].lines("listening")[0]["module"],
        }.items()
    )


# --- SIGUSR1


def test_sigusr1_turns_debug_logging_on_and_off(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(ALLOW))
    for turn in (1, 2):
        agent.process.send_signal(signal.SIGUSR1)
        wait_for_lines(agent, "debug logging is on", turn)
        with agent.v2() as client:
            ask(client, f"on-{turn}")
        wait_for_lines(agent, "connection ended", turn)
        agent.process.send_signal(signal.SIGUSR1)
        wait_for_lines(agent, "debug logging is off", turn)
        with agent.v2() as client:
            ask(client, f"off-{turn}")
    assert agent.stop() == 0
    assert decided(agent) == ["on-1", "on-2"]
    assert len(agent.lines("connection opened")) == 2


def test_sigusr1_before_it_listens_changes_nothing(build_wat: BuildWat, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    program = (
        "import os, signal, sentinel_wasm.server.run as run, sentinel_wasm.cli.agent as cli\n"
        "load = run.Module.load\n"
        "run.Module.load = lambda *given: os.kill(os.getpid(), signal.SIGUSR1) or load(*given)\n"
        "cli.main()\n"
    )
    options = ["--module", build_wat(ALLOW), "--socket", tmp_path / "s"]
    with subprocess.Popen([sys.executable, "-c", program, *map(str, options)], stderr=theirs) as agent:
        os.close(theirs)
        assert b"debug logging" not in read_until(ours, b"listening")
        agent.terminate()
        assert agent.wait(10) == 0
    os.close(ours)


def test_sigusr1_reaches_every_worker(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(ALLOW), "--workers", "2")
    for pid in children(agent.process.pid):
        os.kill(pid, signal.SIGUSR1)  # as `systemctl kill` does
    agent.process.send_signal(signal.SIGUSR1)
    wait_for_lines(agent, "debug logging is on", 3)
    clients = [agent.v2() for _ in range(2)]
    for number, client in enumerate(clients):
        ask(client, f"on-{number}")
    until(lambda: len(decided(agent)) == 2)
    assert agent.lines("worker died") == []
    os.kill(pid_of(agent, 1), signal.SIGKILL)
    until(lambda: starts_of(agent, 1) == 2)
    wait_for_lines(agent, "debug logging is on", 4)
    agent.process.send_signal(signal.SIGUSR1)
    wait_for_lines(agent, "debug logging is off", 3)
    with agent.v2() as client:
        ask(client, "off")
    for client in clients:
        client.close()
    assert agent.stop() == 0
    assert sorted(decided(agent)) == ["on-0", "on-1"]


def test_an_agent_that_takes_over_logs_as_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs._State, "is_debug", False)

    async def exchange() -> bool:
        settings = Settings(module=Path("m.wasm"))
        old, new = (Agent(settings, Module(make_engine(), wat.binary(ALLOW), "m.wasm")) for _ in range(2))
        serving = Serving(settings, old)
        serving.set_debug(True)
        serving.exchange(new)
        was_logged = new.quick.is_logged("id")
        serving.set_debug(False)
        for agent in (old, new):
            agent.close()
        return was_logged and not new.quick.is_logged("id")

    assert asyncio.run(exchange())


# --- what guests print


def test_what_a_guest_says_is_no_line_of_the_agent(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(says_in_the_log(b"module failed")))
    with agent.v2() as client:
        ask(client, "id-1")
    line = orjson.loads(agent.wait_for_log("module failed"))
    del line["timestamp"]
    assert line == {
        "event": "guest output",
        "text": "module failed",
        "source": "log",
        "level": "warning",
        "correlation_id": "id-1",
        "module": agent.lines("listening")[0]["module"],
    }


def test_what_a_guest_prints_is_bounded_in_bytes_and_counted_by_itself(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    agent = start_agent(build_wat(says_in_the_log(b"x" * 8000)), *LOCAL)
    with agent.v2() as client:
        for number in range(50):
            ask(client, f"{number}")
    began = time.monotonic()

    def counted() -> int:
        return sum(line["lines"] for line in agent.lines("guest output left out"))

    until(lambda: len(agent.lines("guest output")) + counted() == 50)
    shown = len(agent.lines("guest output"))
    assert shown <= BYTES_A_SECOND // 8000 * (2 + time.monotonic() - began)
    assert Scraped(agent).value("log_lines_dropped_total", why="rate") == 50 - shown


def test_debug_lines_of_guests_that_nobody_sees_take_no_room(capsys: pytest.CaptureFixture[str]) -> None:
    output = GuestOutput()
    for number in range(200):
        output.write([(LOG + 1, b"debug %d" % number)], 0, "a")
    output.write([(LOG + 3, b"a warning")], 0, "a")
    shown = capsys.readouterr().out
    assert "a warning" in shown
    assert "debug" not in shown


# --- nobody reads it


@pytest.fixture
def stuck() -> Iterator[tuple[int, int]]:
    """A pipe's reading and writing end."""
    ours, theirs = os.pipe()
    yield ours, theirs
    for descriptor in (ours, theirs):
        os.close(descriptor)


def test_a_log_that_is_stuck_costs_no_answer_its_time(
    build_wat: BuildWat, tmp_path: Path, stuck: tuple[int, int]
) -> None:
    ours, theirs = stuck
    options = ("--verbose", "--isolation", "request", *LOCAL)
    agent = agent_that_logs_to(theirs, build_wat(TRAP), tmp_path / "s", *options)
    try:
        read_until(ours, b"listening")
        took = []
        with ClientV1(tmp_path / "s", timeout_s=30) as client:
            for number in range(2000):
                began = time.monotonic()
                assert ask(client, f"{number}" + "x" * 1000)["decision"]["block"]["status"] == 500
                took.append(time.monotonic() - began)
        assert sorted(took)[1980] < 0.5
        # Now it is read, and says what it does not have.
        line = read_line_with(ours, b"log lines dropped")
        assert line["lines"] > 500
        assert line["level"] == "warning"
        with ClientV1(tmp_path / "s") as client:
            for number in range(300):
                ask(client, f"{number}" + "x" * 1000)
        # It ends although its last lines are not read.
        agent.terminate()
        assert agent.wait(30) == 0
    finally:
        agent.kill()
        agent.wait()


@pytest.fixture
def writer(stuck: tuple[int, int]) -> Iterator[stderr.Writer]:
    made = stderr.Writer(stuck[1], lambda lines: b"%d dropped\n" % lines)
    yield made
    # Its thread must not write to what other tests open under the same number.
    made.write("the end\n")
    read_until(stuck[0], b"the end\n")


def test_lines_come_whole_and_in_order(writer: stderr.Writer, stuck: tuple[int, int]) -> None:
    lines = [f"{number} {'x' * (number % 700)}\n" for number in range(2000)] + ["y" * 10_000 + "\n"]
    found = bytearray()
    reader = threading.Thread(target=lambda: found.extend(read_until(stuck[0], b"y\n")))
    reader.start()
    for line in lines:
        writer.write(line)
    reader.join(20)
    assert found.decode() == "".join(lines)
    assert writer.dropped == 0


def test_what_is_over_a_mib_is_dropped_and_counted(writer: stderr.Writer, stuck: tuple[int, int]) -> None:
    lines = 2 * stderr.MOST_BYTES // 1000
    for _ in range(lines):
        writer.write("x" * 999 + "\n")
    dropped = writer.dropped
    kept = (lines - dropped) * 1000
    assert stderr.MOST_BYTES - 1000 <= kept <= stderr.MOST_BYTES + 70_000
    read_until(stuck[0], b"x\n" + b"%d dropped\n" % dropped)
    assert writer.dropped == dropped
    writer.write("there is room again\n")
    read_until(stuck[0], b"there is room again\n")


def test_the_end_waits_for_what_is_written_but_not_for_ever(
    writer: stderr.Writer, stuck: tuple[int, int]
) -> None:
    writer.write("a line\n")
    writer.finish(10)
    assert select.select([stuck[0]], [], [], 0)[0], "it is there already"
    assert os.read(stuck[0], 100) == b"a line\n"
    writer.write("x" * 200_000)
    began = time.monotonic()
    writer.finish(0.2)
    assert 0.1 < time.monotonic() - began < 5


def test_a_pipe_that_others_made_nonblocking_loses_nothing(
    writer: stderr.Writer, stuck: tuple[int, int]
) -> None:
    os.set_blocking(stuck[1], False)
    writer.write("x" * 200_000)
    writer.write("end\n")
    assert len(read_until(stuck[0], b"end\n")) == 200_004
    assert writer.dropped == 0


def test_lines_for_a_reader_that_is_gone_are_counted() -> None:
    ours, theirs = os.pipe()
    writer = stderr.Writer(theirs, lambda lines: b"dropped\n")
    os.close(ours)
    for _ in range(5):
        writer.write("line\n")
    writer.finish(10)
    assert writer.dropped >= 5
    os.close(theirs)
