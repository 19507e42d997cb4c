"""`sentinel-wasm check`: the examples are good, and what is not is found."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from sentinel_wasm.cli import check

from .conftest import EXAMPLES, BuildWat
from .guest import wat
from .test_call import PATIENT, run

pytestmark = pytest.mark.parallel

MODULES = sorted(EXAMPLES.glob("*/*.wasm"))
ALLOWS = wat.data(wat.RESULT, b'{"decision":"allow"}')


def checked(path: Path, *options: str, status: int) -> dict[str, Any]:
    done = run("check", path, "--json", *PATIENT, *options)
    assert (done.returncode, done.stderr) == (status, "")
    report: dict[str, Any] = orjson.loads(done.stdout)
    return report


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_examples_are_good(path: Path) -> None:
    report = checked(path, status=0)
    assert report["problems"] == []
    assert report["hooks"]
    assert report["size_bytes"] == path.stat().st_size
    assert report["exports"]["alloc"] == "a function (i32) → i32"
    assert report["memory_bytes"] > 0
    assert report["load_ms"] > 0
    assert report["call_us"] > 0
    assert report["odd_events"] >= 8 * len(report["hooks"])


def test_ctrl_c_ends_it_at_once() -> None:
    """Whatever wasmtime is at: here it compiles."""
    command = [sys.executable, "-m", "sentinel_wasm.cli.toolkit", "check"]
    command += [str(EXAMPLES / "c" / "security.wasm")] * 500
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (-signal.SIGINT, b"")


def test_progress_is_shown_on_a_terminal() -> None:
    ours, its = pty.openpty()
    command: list[str | Path] = [sys.executable, "-m", "sentinel_wasm.cli.toolkit", "check"]
    done = subprocess.run(
        [*command, EXAMPLES / "c" / "bare.wasm", *PATIENT], stdout=subprocess.PIPE, stderr=its, timeout=60
    )
    os.close(its)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 0
    assert done.stdout.endswith(b"  good\n")
    assert "bare.wasm" in shown
    assert "100%" in shown


def test_people_can_read_it(build_wat: BuildWat) -> None:
    text = wat.module(ALLOWS, wat.hook(wat.returns(wat.RESULT, 20)), alloc="(i32.const 65536)", pages=8)
    good, bad = build_wat(text), EXAMPLES / "c" / "build.sh"
    done = run("check", good, bad, *PATIENT)
    assert done.returncode == 1
    assert f"{good}\n  size " in done.stdout
    assert "\n  hooks     on_request_headers\n" in done.stdout
    assert "\n  good\n" in done.stdout
    assert f"\n{bad}\n  problem   {bad}" in done.stdout
    assert done.stdout.endswith("  fails under the agent\n")


def test_what_breaks_on_an_odd_event_is_said(build_wat: BuildWat) -> None:
    """One that is longer than 64 KB."""
    text = wat.module(
        ALLOWS,
        wat.hook(
            "(if (i32.gt_u (local.get $n) (i32.const 65536)) (then unreachable))"
            + wat.returns(wat.RESULT, 20)
        ),
        alloc="(i32.const 65536)",
        pages=8,
    )
    (problem,) = checked(build_wat(text), status=1)["problems"]
    assert problem.startswith("on_request_headers, headers: one of 100 KB: ")


def test_memory_that_is_not_freed_is_found(build_wat: BuildWat) -> None:
    """Each call leaves a hundred bytes behind."""
    text = wat.module(
        ALLOWS,
        wat.hook(
            """(i32.store (i32.const 256) (i32.add (i32.load (i32.const 256)) (i32.const 100)))
            (if (i32.gt_u (i32.load (i32.const 256)) (i32.const 65536))
              (then (drop (memory.grow (i32.const 1))) (i32.store (i32.const 256) (i32.const 0))))"""
            + wat.returns(wat.RESULT, 20)
        ),
        alloc="(i32.const 65536)",
        pages=8,
    )
    (problem,) = checked(build_wat(text), status=1)["problems"]
    assert "its memory grew by 0." in problem


def test_a_result_that_is_none_is_found(build_wat: BuildWat) -> None:
    text = wat.module(wat.data(wat.RESULT, b'{"decision":"alow"}'), wat.hook(wat.returns(wat.RESULT, 19)))
    assert "alow" in checked(build_wat(text), status=1)["problems"][0]


def test_a_dealloc_that_traps_is_warned_of(build_wat: BuildWat) -> None:
    text = wat.module(
        ALLOWS,
        wat.hook(wat.returns(wat.RESULT, 20)),
        alloc="(i32.const 65536)",
        dealloc="(unreachable)",
        pages=8,
    )
    first, second = checked(build_wat(text), status=0)["warnings"]
    assert first.startswith("on_request_headers, call 1: its answer was sound, but then ")
    assert second.startswith("on_request_headers, call 2: ")


def test_a_slow_module_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every module is, where nothing is quick enough."""
    monkeypatch.setattr(check, "SLOW_START_MS", 0)
    monkeypatch.setattr(check, "SLOW_US", 0)
    report = check.examine(EXAMPLES / "c" / "security.wasm", None, 2000, 64)
    assert report.problems == []
    start, call = report.warnings
    assert "to start: --isolation request would not do" in start
    assert "worker threads" in call


def test_a_module_without_what_the_abi_wants_is_told_all_of_it(build_wat: BuildWat) -> None:
    done = run("check", build_wat("(module)"))
    assert done.returncode == 1
    assert "export memory is missing" in done.stdout
    assert "none of the hooks is exported" in done.stdout
