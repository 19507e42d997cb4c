"""The command line: published options and variables, one clear line for each mistake, no traceback."""

from __future__ import annotations

import errno
import grp
import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

import sentinel_wasm
from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.errors import SocketError
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.server import listener

from .conftest import EXAMPLES, BuildWat, StartAgent
from .warm import AGENT, FORGE
from .wat import module

pytestmark = pytest.mark.parallel

ALLOW = module(on_request_headers='{"decision":"allow"}')
TRAP = module(extra='(func (export "on_request_headers") (param i32 i32) (result i64) unreachable)')


def run(*options: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return FORGE.run(AGENT, *options, environment={**os.environ, **(environment or {})}, timeout=30)


def assert_one_line(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith("sentinel-wasm-agent: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


# --- options


def test_help_names_every_published_option_variable_and_default() -> None:
    done = run("--help")
    text = " ".join(done.stdout.split())
    assert done.returncode == 0
    for option, variable, default in [
        ("--socket", "AGENT_SOCKET", "/tmp/sentinel- wasm.sock"),
        ("--module", "WASM_MODULE", "required"),
        ("--pool-size", "WASM_POOL_SIZE", "4"),
        ("--verbose", "WASM_VERBOSE", ""),
        ("--fail-open", "FAIL_OPEN", ""),
    ]:
        assert option in text
        assert variable in text
        assert default.replace(" ", "") in text.replace(" ", "")


def test_version() -> None:
    assert run("--version").stdout.strip() == f"sentinel-wasm-agent, version {sentinel_wasm.__version__}"


def test_published_variables_are_options(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(TRAP), environment={"FAIL_OPEN": "true", "WASM_POOL_SIZE": "2"})
    assert orjson.loads(agent.wait_for_log("listening"))["pool_size"] == 2
    with agent.v1() as client:
        answer = client.ask(EventKind.REQUEST_HEADERS, request_headers("a"))
    assert answer["audit"]["tags"] == ["wasm-error", "fail-open"]


def test_an_option_beats_its_variable(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(ALLOW), "--pool-size", "3", environment={"WASM_POOL_SIZE": "2"})
    assert orjson.loads(agent.wait_for_log("listening"))["pool_size"] == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ["--module", "WASM_MODULE"]),
        (("--module", "m.wasm", "--pool-size", "0"), ["--pool-size", "0"]),
        (("--module", "m.wasm", "--pool-size", "many"), ["--pool-size", "many"]),
        (("--module", "m.wasm", "--timeout-ms", "99999999999999"), ["--timeout-ms", "3600000"]),
        (("--module", "m.wasm", "--log-decisions", "1.5"), ["--log-decisions", "1.5", "from 0 to 1"]),
        (("--module", "m.wasm", "--log-decisions", "nan"), ["--log-decisions", "nan", "from 0 to 1"]),
        (("--module", "m.wasm", "--log-decisions", "some"), ["--log-decisions", "some", "from 0 to 1"]),
        (("--module", "m.wasm", "--header-names", "upper"), ["canonical", "lower", "as-is"]),
        (("--module", "m.wasm", "--sha256", "abc"), ["--sha256", "'abc'", "64 hexadecimal digits"]),
        (("--module", "m.wasm", "--socket-mode", "0680"), ["--socket-mode", "octal digits, as 0660"]),
        (("--module", "m.wasm", "--socket-group", ""), ["--socket-group", "name or number"]),
        (("--module", "m.wasm", "--nonsense"), ["--nonsense"]),
        (("--module", "m.wasm", "left", "over"), ["left"]),
    ],
)
def test_a_mistake_in_the_options_is_one_line_and_status_2(
    options: tuple[str, ...], words: list[str]
) -> None:
    assert_one_line(run(*options), 2, *words)


def test_a_bad_variable_is_one_line_and_status_2() -> None:
    assert_one_line(run("--module", "m", environment={"WASM_POOL_SIZE": "x"}), 2, "WASM_POOL_SIZE")


# --- modules


def test_a_missing_module_is_one_line_and_status_1(tmp_path: Path) -> None:
    assert_one_line(run("--module", tmp_path / "none.wasm"), 1, "none.wasm", "No such file")


def test_a_folder_as_module_is_one_line_and_status_1(tmp_path: Path) -> None:
    assert_one_line(run("--module", tmp_path), 1, "directory")


def test_a_file_that_is_no_module_is_one_line_and_status_1(tmp_path: Path) -> None:
    path = tmp_path / "page.wasm"
    path.write_text("<html>")
    assert_one_line(run("--module", path), 1, "page.wasm", "not a WebAssembly binary")


def test_wrong_exports_are_one_line_that_names_them_all(build_wat: BuildWat) -> None:
    path = build_wat('(module (func (export "alloc")) (func (export "on_request_headers") (param i64)))')
    done = run("--module", path, "--socket", path.with_suffix(".sock"))
    assert_one_line(
        done, 1, "memory is missing", "alloc is", "dealloc is missing", "on_request_headers is", "i64"
    )


def test_nothing_listens_before_every_instance_is_ready(build_wat: BuildWat, tmp_path: Path) -> None:
    path = build_wat(module(extra="(func $start unreachable) (start $start)", on_request_headers="{}"))
    assert_one_line(run("--module", path, "--socket", tmp_path / "s"), 1, "cannot be started", "unreachable")
    assert not (tmp_path / "s").exists()


def test_a_module_of_the_given_digest_is_taken_and_another_refused(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    path = build_wat(ALLOW)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    start_agent(path, "--sha256", digest.upper())
    other = "0" * 64
    done = run("--module", path, "--socket", path.with_suffix(".s"), "--sha256", other)
    assert_one_line(done, 1, str(path), f"digest is {digest}", f"--sha256 wants {other}")


def test_two_agents_on_one_machine_need_two_sockets_only(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    allows = start_agent(build_wat(ALLOW))
    traps = start_agent(build_wat(TRAP))
    with allows.v1() as first, traps.v1() as second:
        assert first.ask(EventKind.REQUEST_HEADERS, request_headers("a"))["decision"] == "allow"
        assert "block" in second.ask(EventKind.REQUEST_HEADERS, request_headers("a"))["decision"]
    allows.stop()
    with traps.v1() as again:
        assert "block" in again.ask(EventKind.REQUEST_HEADERS, request_headers("a"))["decision"]


# --- the socket


def test_a_socket_in_use_is_one_line_and_the_first_agent_goes_on(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    path = build_wat(ALLOW)
    agent = start_agent(path)
    assert_one_line(
        run("--module", path, "--socket", agent.socket), 1, "another agent is listening", "--takeover"
    )
    with agent.v1() as client:
        assert client.ask(EventKind.REQUEST_HEADERS, request_headers("a"))["decision"] == "allow"


def test_a_stale_socket_is_replaced(start_agent: StartAgent, build_wat: BuildWat) -> None:
    path = build_wat(ALLOW)
    first = start_agent(path)
    first.stop(signal.SIGKILL)
    assert first.socket.exists()
    agent = start_agent(path, socket=first.socket)
    with agent.v1() as client:
        assert client.ask(EventKind.REQUEST_HEADERS, request_headers("a"))["decision"] == "allow"


def test_a_stale_socket_that_is_not_ours_to_remove_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """unlink is made to refuse, as in another user's folder: root, which may run the tests, removes all."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(SocketError, match="left there cannot be removed: Operation not permitted"):
        listener.listen(tmp_path / "s")


def test_a_file_that_is_no_socket_is_left_untouched(build_wat: BuildWat, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert_one_line(run("--module", build_wat(ALLOW), "--socket", path), 1, "not a socket")
    assert path.read_text() == "data"


def test_a_path_that_cannot_be_made_is_one_line(build_wat: BuildWat, tmp_path: Path) -> None:
    wasm = build_wat(ALLOW)
    assert_one_line(run("--module", wasm, "--socket", tmp_path / "no" / "such" / "dir"), 1, "cannot listen")
    assert_one_line(run("--module", wasm, "--socket", tmp_path / ("x" * 120)), 1, "cannot listen")


def test_the_socket_is_closed_to_others(tmp_path: Path) -> None:
    with listener.listen(tmp_path / "s"):
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660


def test_mode_and_group_of_the_socket_are_as_given(start_agent: StartAgent, build_wat: BuildWat) -> None:
    # Another than a file has by itself, where this user has one.
    group = 1 if os.geteuid() == 0 else [os.getgid(), *os.getgroups()][-1]
    name = grp.getgrgid(group).gr_name
    for given in (str(group), name):
        agent = start_agent(build_wat(ALLOW), "--socket-mode", "0606", "--socket-group", given)
        found = agent.socket.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o606, group)


def test_a_group_that_is_not_there_is_one_line(build_wat: BuildWat, tmp_path: Path) -> None:
    done = run("--module", build_wat(ALLOW), "--socket", tmp_path / "s", "--socket-group", "no such")
    assert_one_line(done, 1, "there is no group 'no such' for --socket-group", "groupadd")


def test_a_group_that_the_user_is_not_in_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """chown is made to refuse: root, which may run the tests, is in every group."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(SocketError, match=r"group of --socket-group, 1: Operation not permitted; .* member"):
        listener.listen(tmp_path / "s", group="1")
    assert not (tmp_path / "s").exists()


def test_an_agent_does_not_remove_the_socket_of_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listener.listen(path):
        ours = listener.identity(path)
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            listener.unlink(path, ours)
            assert path.exists()


def test_listening_twice_is_an_error(tmp_path: Path) -> None:
    with listener.listen(tmp_path / "s"), pytest.raises(SocketError, match="another agent"):
        listener.listen(tmp_path / "s")


# --- logs


def test_logs_are_json_lines_when_stderr_is_no_terminal(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(TRAP), "--verbose")
    with agent.v2() as client:
        client.ask(EventKind.REQUEST_HEADERS, request_headers("find-me"))
    agent.stop()
    for line in agent.log.splitlines():
        assert {"event", "level", "timestamp"} <= set(orjson.loads(line))
    failed = [orjson.loads(line) for line in agent.log.splitlines() if "module failed" in line]
    assert len(failed) == 1
    assert failed[0]["correlation_id"] == "find-me"
    assert failed[0]["reason"] == "trap: unreachable in on_request_headers"


def test_logs_are_readable_on_a_terminal(build_wat: BuildWat, tmp_path: Path) -> None:
    # `script` gives the agent a terminal.
    command = f"{sys.executable} -m sentinel_wasm.cli.agent --module {build_wat(ALLOW)} --socket {tmp_path}/s"
    with subprocess.Popen(
        ["timeout", "-s", "TERM", "60", "script", "-qec", command, "/dev/null"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
    assert "listening" in line
    assert not line.startswith("{")


def test_a_log_that_nobody_reads_costs_no_answer(build_wat: BuildWat, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sentinel_wasm.cli.agent",
        "--module",
        build_wat(TRAP),
        "--socket",
        tmp_path / "s",
    ]
    with subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"listening" in process.stderr.readline()
        process.stderr.close()
        with ClientV2(tmp_path / "s") as client:
            for _ in range(3):
                answer = client.ask(EventKind.REQUEST_HEADERS, request_headers("a"))
                assert answer["decision"]["block"]["status"] == 500
        process.terminate()
    assert process.returncode == 0


def test_verbose_shows_each_decision(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(module(on_request_headers='{"decision":"deny","tags":["x"]}')), "--verbose")
    with agent.v2() as client:
        client.ask(EventKind.REQUEST_HEADERS, request_headers("id-1"))
    line = orjson.loads(agent.wait_for_log("decided"))
    assert (line["decision"], line["status"], line["tags"], line["correlation_id"]) == (
        "block",
        403,
        ["x"],
        "id-1",
    )


def test_decisions_are_not_logged_otherwise(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(ALLOW))
    with agent.v2() as client:
        client.ask(EventKind.REQUEST_HEADERS, request_headers("id-1"))
    agent.stop()
    assert "id-1" not in agent.log


@pytest.mark.parametrize(
    ("name", "options", "warned"),
    [
        ("user-agent", [], True),
        ("User-Agent", [], False),
        ("user-agent", ["--header-names", "canonical"], False),
        ("user-agent", ["--header-names", "lower"], False),
    ],
)
def test_a_module_that_looks_up_lower_case_names_is_warned_of(
    start_agent: StartAgent, build_wat: BuildWat, name: str, options: list[str], warned: bool
) -> None:
    wasm = build_wat(
        module(extra=f'(data (i32.const 4096) "{name}")', on_request_headers='{"decision":"allow"}')
    )
    agent = start_agent(wasm, *options)
    agent.wait_for_log("listening")
    assert ("--header-names lower" in agent.log) is warned


def test_a_module_that_takes_too_long_to_compile_is_one_line(tmp_path: Path) -> None:
    """The Go example takes a second or two; a module that takes 10 s would be a slow test."""
    program = (
        "import sentinel_wasm.cli.agent, sentinel_wasm.server.run\n"
        "sentinel_wasm.server.run._COMPILE_S = 0.05\n"
        "sentinel_wasm.cli.agent.main()\n"
    )
    options: list[str | Path] = ["--module", EXAMPLES / "go" / "security.wasm", "--socket", tmp_path / "s"]
    options += ["--cache-dir", "/dev/null"]
    done = subprocess.run(
        [sys.executable, "-c", program, *options], capture_output=True, text=True, timeout=60
    )
    assert_one_line(done, 1, "compiling it took more than 0.05 s")
