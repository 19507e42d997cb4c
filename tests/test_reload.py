"""SIGHUP and --watch: real agents, whose modules and configuration files are replaced."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path, PosixPath

import orjson
import pytest

from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType
from sentinel_wasm.server.watch import Files

from .conftest import EXAMPLES, LINUX, RunningAgent, StartAgent, has_ended, until
from .guest.wat import binary
from .reloading import (
    FIRST,
    SECOND,
    TRAPS_AT_START,
    TRAPS_ON_EVENTS,
    configure,
    next_result,
    put,
    reload,
    results,
    tagging,
    tags,
    unconfigurable,
)
from .scraping import LOCAL, Scraped, get
from .test_workers import children, pid_of, starts_of
from .wat import module

pytestmark = pytest.mark.parallel

REFUSING = tagging("refusing", on_configure='{"error":"no list named x"}')


@pytest.fixture
def wasm(tmp_path: Path) -> Path:
    """A module's file, to be replaced."""
    path = tmp_path / "filter.wasm"
    path.write_bytes(FIRST)
    return path


def assert_no_traceback(agent: RunningAgent) -> None:
    assert "Traceback" not in agent.log
    assert "internal error" not in agent.log


def test_sighup_has_the_new_module_answer_on_connections_that_stay_open(
    start_agent: StartAgent, wasm: Path
) -> None:
    agent = start_agent(wasm, *LOCAL)
    with agent.v1() as old, agent.v2() as new:
        assert tags(old) == tags(new) == ["first"]
        assert Scraped(agent).value("reload_success_timestamp_seconds") == 0
        put(wasm, SECOND)
        began = time.time()
        result = reload(agent)
        assert (result["event"], result["level"]) == ("reloaded", "info")
        assert tags(old) == tags(new) == ["second"]
    page = Scraped(agent)
    assert page.by("result", "reloads_total") == {"ok": 1}
    assert began <= page.value("reload_success_timestamp_seconds") <= time.time()
    assert page.by("sha256", "module_info") == {result["module"]: 1}
    until(lambda: Scraped(agent).value("instances") == 4)
    assert reload(agent)["event"] == "reloaded: nothing has changed"
    assert Scraped(agent).by("result", "reloads_total") == {"ok": 2}
    assert_no_traceback(agent)


def test_a_broken_module_leaves_the_old_one_running(start_agent: StartAgent, wasm: Path) -> None:
    agent = start_agent(wasm, *LOCAL)
    broken = {
        "unexpected end": SECOND[:-30],
        "not a WebAssembly binary": b"<html>",
        "trap: unreachable in the start function": TRAPS_AT_START,
        "no list named x": REFUSING,
        "export alloc is missing": binary('(module (memory (export "memory") 1))'),
    }
    with agent.v2() as client:
        for reason, data in broken.items():
            put(wasm, data)
            result = reload(agent)
            assert (result["event"].partition(",")[0], result["level"]) == ("reload failed", "error")
            assert reason in result["reason"]
            assert tags(client) == ["first"]
        wasm.unlink()
        assert "cannot read the module" in reload(agent)["reason"]
        assert Scraped(agent).by("result", "reloads_total") == {"failed": len(broken) + 1}
        put(wasm, SECOND)
        assert reload(agent)["event"] == "reloaded"
        assert tags(client) == ["second"]
    until(lambda: Scraped(agent).value("instances") == 4)
    assert_no_traceback(agent)


@pytest.mark.parametrize("kept", ["/dev/null", "loose"])
def test_without_a_cache_the_code_comes_from_the_child(
    start_agent: StartAgent, wasm: Path, tmp_path: Path, kept: str
) -> None:
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose").chmod(0o777)
    agent = start_agent(wasm, "--cache-dir", str(tmp_path / kept))
    put(wasm, SECOND)
    assert reload(agent)["event"] == "reloaded"
    with agent.v2() as client:
        assert tags(client) == ["second"]
    assert list((tmp_path / "loose").iterdir()) == []


def test_a_module_with_another_digest_than_asked_for_is_refused(start_agent: StartAgent, wasm: Path) -> None:
    agent = start_agent(wasm, "--sha256", hashlib.sha256(FIRST).hexdigest())
    put(wasm, SECOND)
    assert f"its SHA-256 digest is {hashlib.sha256(SECOND).hexdigest()}" in reload(agent)["reason"]
    with agent.v2() as client:
        assert tags(client) == ["first"]


@LINUX
def test_more_signals_during_a_reload_make_one_more(start_agent: StartAgent, wasm: Path) -> None:
    agent = start_agent(wasm)
    put(wasm, SECOND)
    agent.process.send_signal(signal.SIGHUP)
    until(lambda: bool(children(agent.process.pid)))
    put(wasm, tagging("third"))
    for _ in range(3):
        agent.process.send_signal(signal.SIGHUP)
        time.sleep(0.01)
    assert [next_result(agent, number)["event"] for number in (0, 1)] == ["reloaded", "reloaded"]
    assert reload(agent)["event"] == "reloaded: nothing has changed"
    assert len(results(agent)) == 3
    with agent.v2() as client:
        assert tags(client) == ["third"]


@LINUX
def test_the_child_gives_way_and_may_die(start_agent: StartAgent, wasm: Path) -> None:
    agent = start_agent(wasm, "--cache-dir", "/dev/null")
    put(wasm, (EXAMPLES / "go" / "security.wasm").read_bytes())  # takes a second and more to compile
    agent.process.send_signal(signal.SIGHUP)
    until(lambda: any(niceness(child) == 19 for child in children(agent.process.pid)))
    (child,) = children(agent.process.pid)
    os.kill(child, signal.SIGKILL)
    assert "killed by SIGKILL" in next_result(agent, 0)["reason"]
    with agent.v2() as client:
        assert tags(client) == ["first"]
    agent.process.send_signal(signal.SIGHUP)
    until(lambda: bool(children(agent.process.pid)))
    (child,) = children(agent.process.pid)
    assert agent.stop() == 0
    assert has_ended(child)
    assert_no_traceback(agent)


def niceness(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


# --- the configuration file


def test_the_file_is_read_again_but_flags_win(start_agent: StartAgent, wasm: Path) -> None:
    configuration = wasm.with_name("agent.toml")

    def write(options: str, config: str = "", path: str = wasm.name) -> None:
        configuration.write_text(f'{options}\n[module]\npath = "{path}"\n{config}')

    write("pool-size = 3\nfail-open = true")
    agent = start_agent(None, "--config", str(configuration), "--fail-open", *LOCAL)
    assert Scraped(agent).value("instances") == 3
    other = wasm.with_name("other.wasm")
    other.write_bytes(TRAPS_ON_EVENTS)
    write("pool-size = 2\nfail-open = false\nproxy-timeout-ms = 70\nworkers = 2", path=other.name)
    assert reload(agent)["event"] == "reloaded"
    (warning,) = agent.lines("changed, but only a restart brings it into effect")
    assert warning["options"] == ["workers"]  # the variable wins over the file's proxy-timeout-ms
    until(lambda: Scraped(agent).value("instances") == 2)
    with agent.v2() as client:
        assert tags(client) == ["wasm-error", "fail-open"]

        write("pool-size = 2\nfail-opn = true", path=other.name)
        reason = reload(agent)["reason"]
        assert f"{configuration}:2: unknown key 'fail-opn', did you mean fail-open?" in reason
        configuration.unlink()
        assert "cannot read the configuration" in reload(agent)["reason"]
        assert tags(client) == ["wasm-error", "fail-open"]

        other.write_bytes(REFUSING)
        write("", "[module.config]\na = 1\n", other.name)
        assert "no list named x" in reload(agent)["reason"]
        write("pool-size = 1")
        assert reload(agent)["event"] == "reloaded"
        assert tags(client) == ["first"]
    until(lambda: Scraped(agent).value("instances") == 1)
    assert Scraped(agent).by("result", "reloads_total") == {"ok": 2, "failed": 3}
    assert_no_traceback(agent)


# --- health


def test_a_reload_cures_a_module_that_keeps_failing(start_agent: StartAgent, wasm: Path) -> None:
    wasm.write_bytes(TRAPS_ON_EVENTS)
    agent = start_agent(wasm, *LOCAL)
    with agent.v2() as client, agent.v1() as other:
        for _ in range(10):
            tags(other)
        assert next_state(client) == 2
        assert get(agent, "/readyz")[0] == 503
        put(wasm, FIRST)
        assert reload(agent)["event"] == "reloaded"
        assert next_state(client) == 1
    assert get(agent, "/readyz")[0] == 200


def next_state(client: ClientV2) -> int:
    """Of the HealthStatus that an idle connection gets."""
    payload = client.receive()
    assert client.frame_type == FrameType.HEALTH_STATUS
    state: int = orjson.loads(payload)["state"]
    return state


# --- --watch


def test_watch_sees_a_replaced_file_and_a_swapped_symlink(start_agent: StartAgent, tmp_path: Path) -> None:
    """As Kubernetes lays a ConfigMap out: filter.wasm → ..data/filter.wasm, ..data → a directory."""
    for name, data in (("one", FIRST), ("two", SECOND)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "filter.wasm").write_bytes(data)
    (tmp_path / "..data").symlink_to("one")
    wasm = tmp_path / "filter.wasm"
    wasm.symlink_to(Path("..data") / "filter.wasm")
    agent = start_agent(wasm, "--watch")
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert next_result(agent, 0)["event"] == "reloaded"
    with agent.v2() as client:
        assert tags(client) == ["second"]
        put(tmp_path / "two" / "filter.wasm", b"<html>")
        assert "not a WebAssembly binary" in next_result(agent, 1)["reason"]
        put(tmp_path / "two" / "filter.wasm", FIRST)
        assert next_result(agent, 2)["event"] == "reloaded"
        assert tags(client) == ["first"]


def test_watch_waits_for_a_file_that_is_missing_or_still_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    files = Files(path, None)
    assert [files.have_changed() for _ in range(2)] == [False, False]
    path.unlink()
    assert [files.have_changed() for _ in range(3)] == [False, False, False]
    path.write_bytes(b"tw")
    assert not files.have_changed()
    path.write_bytes(b"two")
    assert [files.have_changed() for _ in range(3)] == [False, True, True]
    files.note(path)
    assert [files.have_changed() for _ in range(2)] == [False, False]
    files.forget_all_but(None)
    path.write_bytes(b"three")
    assert [files.have_changed() for _ in range(2)] == [False, False]


def test_watch_notes_files_before_they_are_read(tmp_path: Path) -> None:
    """What is replaced after that is seen, however soon."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    files = Files(path)
    put(path, b"two")
    assert [files.have_changed() for _ in range(2)] == [False, True]


def test_files_may_be_noted_while_watch_looks(tmp_path: Path) -> None:
    """A reload notes them on the event loop, and watch looks in another thread."""
    noted = iter(range(10))

    class Noting(PosixPath):
        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            if files is not None:
                files.note(tmp_path / str(next(noted)))
            return super().stat(follow_symlinks=follow_symlinks)

    files: Files | None = None
    files = Files(Noting(tmp_path / "one"), Noting(tmp_path / "two"))
    assert not files.have_changed()


# --- --workers


def test_all_workers_reload_and_later_ones_start_with_what_the_others_have(
    start_agent: StartAgent, wasm: Path
) -> None:
    agent = start_agent(wasm, "--workers", "2", *LOCAL)
    put(wasm, TRAPS_AT_START)
    assert "the start function" in reload(agent)["reason"]
    put(wasm, SECOND)
    assert reload(agent)["event"] == "reloaded"
    with agent.v1() as one, agent.v1() as two:
        assert tags(one) == tags(two) == ["second"]
    wasm.write_bytes(b"<html>")
    os.kill(pid_of(agent, 1), signal.SIGKILL)
    until(lambda: starts_of(agent, 1) == 2)
    with agent.v1() as one, agent.v1() as two:
        assert tags(one) == tags(two) == ["second"]
    assert "not a WebAssembly binary" in reload(agent)["reason"]
    page = Scraped(agent)
    assert page.by("result", "reloads_total") == {"ok": 1, "failed": 2}
    assert 0 < page.value("reload_success_timestamp_seconds") <= time.time()
    for pid in (pid_of(agent, 1), pid_of(agent, 2)):
        os.kill(pid, signal.SIGHUP)  # a terminal that hangs up tells them too
    with agent.v1() as one:
        assert tags(one) == ["second"]
    assert [line["event"] for line in results(agent)] == [
        "reload failed, the module and the settings stay as they were",
        "reloaded",
        "reload failed, the module and the settings stay as they were",
    ]
    assert_no_traceback(agent)


def test_a_worker_that_cannot_reload_keeps_what_it_has_and_that_is_said(
    start_agent: StartAgent, wasm: Path
) -> None:
    """A proxy has configured one of them in a way that the new module refuses."""
    wasm.write_bytes(tagging("first", on_configure="{}"))
    agent = start_agent(wasm, "--workers", "2")
    with agent.v1() as one, agent.v1() as two:
        assert configure(one, {"a": "longer than nothing"})["decision"] == "allow"
        put(wasm, unconfigurable("second"))
        reason = reload(agent)["reason"]
        assert "1 of 2 workers keep what they have: worker " in reason
        assert "no such list" in reason
        assert (tags(one), tags(two)) == (["first"], ["second"])
        assert configure(one, {})["decision"] == "allow"
        assert reload(agent)["event"] == "reloaded"
        assert tags(one) == tags(two) == ["second"]
    assert_no_traceback(agent)


def test_an_event_that_is_under_way_is_answered_by_the_old_module(
    start_agent: StartAgent, wasm: Path
) -> None:
    """It sleeps on a worker until its deadline, which is long after the reload."""
    wasi = "wasi_snapshot_preview1"
    sleeps = module(
        """(func (export "on_request_headers") (param i32 i32) (result i64)
          (i32.store (i32.const 4112) (i32.const 1))
          (i64.store (i32.const 4120) (i64.const 3600000000000))
          (drop (call $poll (i32.const 4096) (i32.const 5120) (i32.const 1) (i32.const 6144)))
          (i64.const 0))""",
        imports=f'(import "{wasi}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))',
    )
    wasm.write_bytes(binary(sleeps))
    agent = start_agent(wasm, "--dispatch", "threads", "--timeout-ms", "2500", *LOCAL)
    with agent.v2() as client, agent.v2() as other:
        client.send_event(EventKind.REQUEST_HEADERS, request_headers("slow"))
        until(lambda: Scraped(agent).value("events_pending") == 1)
        put(wasm, SECOND)
        assert reload(agent)["event"] == "reloaded"
        assert tags(other) == ["second"]
        answer = orjson.loads(client.receive())
    assert "deadline of 2500 ms exceeded" in answer["audit"]["reason_codes"][0]
    until(lambda: Scraped(agent).value("instances") == 4)
