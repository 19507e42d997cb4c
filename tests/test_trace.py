"""`sentinel-wasm trace` at real agents, and at what is none."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import orjson
import pytest

from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind

from .conftest import EXAMPLES, RunningAgent, StartAgent, agents
from .scraping import LOCAL, address
from .test_call import run

pytestmark = pytest.mark.parallel

C_EXAMPLE = EXAMPLES / "c" / "security.wasm"
PATIENCE_S = 20
PROGRAM = [sys.executable, "-m", "sentinel_wasm.cli.toolkit", "trace"]


class Tracing:
    """The command as a process; both its outputs are read line by line."""

    def __init__(self, where: str, *options: str, stdout: int = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, where, *options], stdout=stdout, stderr=subprocess.PIPE, text=True, env=PLAIN
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def said(self) -> str:
        """On stderr."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().rstrip("\n")

    def interrupt(self) -> tuple[int, str, str]:
        """Ctrl-C: status, and what was still to be read."""
        self.process.send_signal(signal.SIGINT)
        rest = self.process.communicate(timeout=20)
        return self.process.returncode, *rest


PLAIN = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "WASM_ADMIN")}


@contextlib.contextmanager
def tracing(where: str, *options: str, stdout: int = subprocess.PIPE) -> Iterator[Tracing]:
    made = Tracing(where, *options, stdout=stdout)
    patience = threading.Timer(PATIENCE_S, made.process.kill)  # whoever reads goes on then
    patience.start()
    try:
        yield made
    finally:
        patience.cancel()
        made.process.kill()
        made.process.communicate()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    with agents(tmp_path_factory) as start:
        yield start(C_EXAMPLE, *LOCAL)


def ask(client: ClientV2, correlation_id: str, uri: str = "/") -> None:
    client.ask(EventKind.REQUEST_HEADERS, request_headers(correlation_id, uri=uri))


def fail(client: ClientV2, correlation_id: str) -> None:
    """An event that is not understood."""
    client.ask(EventKind.REQUEST_HEADERS, {"correlation_id": correlation_id})


def test_kept_events_first_then_new_ones_until_ctrl_c(agent: RunningAgent) -> None:
    with agent.v2() as client:
        for number in range(12):
            ask(client, f"before-{number}")
        with tracing(address(agent)) as trace:
            shown = [trace.line().split()[-3] for _ in range(10)]
            assert shown == [f"before-{number}" for number in range(2, 12)]
            ask(client, "after-1", "/../x")
            line = trace.line()
            assert trace.interrupt() == (0, "", "")
    when, decision, took, hook, correlation_id, words = (part.strip() for part in line.split("  ") if part)
    assert len(when) == len("14:03:12.248")
    assert (decision, hook, correlation_id) == ("block 403", "on_request_headers", "after-1")
    assert took.endswith(("µs", "ms"))
    assert words == "tags path-traversal; rules SEC-001; reasons PATH_TRAVERSAL"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["a-challenge", "a-block", "b-block", "A-response"]),
        (("--decision", "block"), ["a-block", "b-block"]),
        (("--decision", "block", "--decision", "allow"), ["a-block", "b-block", "A-response"]),
        (("--hook", "on_request_headers", "--hook", "none"), ["a-challenge", "a-block", "b-block"]),
        (("--id", "A-"), ["a-challenge", "a-block", "A-response"]),
        (("--id", "a-", "--decision", "block"), ["a-block"]),
        (("--tag", "^path|wasm"), ["a-block", "b-block"]),
        (("--failed",), []),
    ],
    ids=" ".join,
)
def test_filters(start_agent: StartAgent, options: tuple[str, ...], expected: list[str]) -> None:
    """The last event fits them all: what is shown before it is all that they show."""
    agent = start_agent(C_EXAMPLE, *LOCAL)
    with agent.v2() as client:
        ask(client, "a-challenge")
        ask(client, "a-block", "/../x")
        ask(client, "b-block", "/../x")
        client.ask(EventKind.RESPONSE_HEADERS, {"correlation_id": "A-response", "status": 200, "headers": {}})
        fail(client, "a-end")
    found = []
    with tracing(address(agent), "--json", "-n", "512", *options) as trace:
        while (event := orjson.loads(trace.line()))["correlation_id"] != "a-end":
            found.append(event["correlation_id"])
        assert trace.interrupt() == (0, "", "")
    assert found == expected
    assert (event["decision"], event["status"], event["tags"]) == ("block", 500, ["wasm-error"])


def test_none_from_before(agent: RunningAgent) -> None:
    with agent.v2() as client:
        ask(client, "old")
        with tracing(address(agent), "-n", "0", "--json") as trace:
            # When it has begun is to be seen by what it shows only.
            assert trace.process.stdout is not None
            while not select.select([trace.process.stdout], [], [], 0.05)[0]:
                ask(client, "new")
            assert orjson.loads(trace.line())["correlation_id"] == "new"


def test_what_is_missed_is_said(agent: RunningAgent) -> None:
    with agent.v2() as client, tracing(address(agent), "-n", "512", "--json") as trace:
        ask(client, "seen")
        while orjson.loads(trace.line())["correlation_id"] != "seen":
            pass
        trace.process.send_signal(signal.SIGSTOP)
        for number in range(700):
            ask(client, f"many-{number}")
        trace.process.send_signal(signal.SIGCONT)
        said = trace.said()
        shown = 1
        while orjson.loads(trace.line())["correlation_id"] != "many-699":
            shown += 1
        missed = int(said.split()[1])
        # An answer that was under way has some of the first.
        assert missed > 0
        assert missed + shown == 700
        assert said == f"-- {missed} events missed: more came than the agent keeps --"


def test_an_agent_that_goes_and_comes_back(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE, *LOCAL)
    where = address(agent)
    with tracing(where, "--json") as trace:
        with agent.v2() as client:
            for number in range(3):
                ask(client, f"before-{number}")
                trace.line()
        agent.stop()
        assert trace.said().startswith("-- the agent is away: ")
        again = start_agent(C_EXAMPLE, "--admin", where)
        assert trace.said() == "-- the agent is back --"
        assert trace.said() == "-- it was restarted or upgraded --"
        with again.v2() as client:
            ask(client, "after")
        event = orjson.loads(trace.line())
        assert (event["number"], event["correlation_id"]) == (1, "after")
        assert trace.interrupt() == (0, "", "")


def test_a_restart_that_nobody_saw(start_agent: StartAgent) -> None:
    """The new process has more events than the old one had: its numbers tell nothing."""
    agent = start_agent(C_EXAMPLE, *LOCAL)
    where = address(agent)
    with tracing(where, "--json") as trace:
        with agent.v2() as client:
            ask(client, "before")
        assert orjson.loads(trace.line())["correlation_id"] == "before"
        trace.process.send_signal(signal.SIGSTOP)
        agent.stop()
        with start_agent(C_EXAMPLE, "--admin", where).v2() as client:
            for number in range(3):
                ask(client, f"after-{number}")
        trace.process.send_signal(signal.SIGCONT)
        found = [orjson.loads(trace.line())["correlation_id"] for _ in range(3)]
        assert found == [f"after-{number}" for number in range(3)]
        assert "-- it was restarted or upgraded --\n" in trace.interrupt()[2]


def test_colours_on_a_terminal_alone(agent: RunningAgent) -> None:
    with agent.v2() as client:
        ask(client, "\x1b[2J", "/../x")
    ours, its = pty.openpty()
    try:
        with tracing(address(agent), "-n", "1", stdout=its), open(ours, closefd=False) as terminal:
            line = terminal.readline()
    finally:
        os.close(ours)
        os.close(its)
    assert "\x1b[31mblock 403" in line
    assert "\\x1b[2J" in line
    with tracing(address(agent), "-n", "1") as trace:
        assert "\x1b" not in trace.line()


def test_a_reader_that_goes_ends_it_without_a_word(agent: RunningAgent) -> None:
    with agent.v2() as client, tracing(address(agent), "-n", "1") as trace:
        ask(client, "one")
        trace.line()
        assert trace.process.stdout is not None
        trace.process.stdout.close()
        while trace.process.poll() is None:
            ask(client, "another")
        assert trace.process.stderr is not None
        # It may have missed some.
        assert all(line.startswith("-- ") for line in trace.process.stderr)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected the agent's --admin address, as :9100, or WASM_ADMIN."),
        ((":0",), "expected the agent's --admin address, as :9100, or WASM_ADMIN."),
        (("9100",), "'9100' is not host:port"),
        ((":9100", "--tag", "("), "'(' is no regular expression: "),
        ((":9100", "--hook", "on_nothing"), "'on_nothing' is not one of"),
    ],
    ids=str,
)
def test_mistakes_in_what_is_asked(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WASM_ADMIN", raising=False)
    done = run("trace", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WASM_ADMIN", "127.0.0.1:1")
    done = run("trace")
    assert done.returncode == 1
    assert done.stderr == (
        "sentinel-wasm: no answer from 127.0.0.1:1: Connection refused; expected an agent's --admin address\n"
    )


EVENT = (
    b'{"number":1,"time":1.5,"correlation_id":"a","hook":"none","decision":"allow","status":null,'
    b'"took_us":1,"tags":[],"rule_ids":[],"reasons":[],"is_cut":false}'
)


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The address of something that answers one connection so."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "answers with status 404"),
        (b"SSH-2.0-x\r\n", "what comes is broken HTTP"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{}", "what comes is broken HTTP"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "is not an agent's"),
        (b"HTTP/1.0 200 OK\r\n\r\n[]", "is not an agent's"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"events":[],"last":0}', "is not an agent's"),
        *(
            (b'HTTP/1.0 200 OK\r\n\r\n{"events":[%s],"last":1,"started":1.5}' % event, "is not an agent's")
            for event in (
                b"1",
                b"{}",
                EVENT.replace(b'"time":1.5', b'"time":1e300'),
                EVENT.replace(b'"tags":[]', b'"tags":[1]'),
                EVENT.replace(b'"status":null', b'"status":"x"'),
            )
        ),
    ],
    ids=str,
)
def test_what_answers_is_no_agent(answer: bytes, said: str) -> None:
    with answering(answer) as where:
        done = run("trace", where)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
