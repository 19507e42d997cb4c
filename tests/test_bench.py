"""`sentinel-wasm bench`: real modules under real agents are measured, and what becomes slower is found."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from sentinel_wasm.bench import load, processes
from sentinel_wasm.bench.baseline import Baseline, slower
from sentinel_wasm.bench.events import TYPICAL
from sentinel_wasm.bench.histogram import Histogram
from sentinel_wasm.bench.machine import this_machine
from sentinel_wasm.bench.results import FIGURES, Ratio, Results, Shape, Side, interval
from sentinel_wasm.errors import UserError

from .conftest import EXAMPLES, BuildWat, StartAgent
from .guest import wat
from .pretending import HELLO, AgentThat, Answer, v1, v2
from .test_benchmarks import ELSEWHERE
from .test_call import PATIENT, TRAPS, run

pytestmark = pytest.mark.parallel

RUST = EXAMPLES / "rust" / "security.wasm"
BRIEF = ("--rounds", "1", "--seconds", "0.05", *PATIENT)
SAYING = ("--rounds", "6", "--seconds", "0.05", *PATIENT)  # the fewest that have an interval
TWICE = ("--threshold", "100")  # what is alike may differ by chance, but not so much
ALLOWS = wat.data(wat.RESULT, b'{"decision":"allow"}')


def spinning(turns: int) -> str:
    """A module that counts so far, and allows."""
    loop = f"""(loop $again (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $i) (i32.const {turns}))))"""
    return wat.module(ALLOWS, wat.hook(loop + wat.returns(wat.RESULT, 20)))


def measured(*arguments: str | Path, options: tuple[str, ...] = BRIEF, status: int = 0) -> dict[str, Any]:
    done = run("bench", "--json", *options, *arguments)
    assert done.returncode == status, done.stderr
    results: dict[str, Any] = orjson.loads(done.stdout)
    return results


# ---- Rounds that say something ----


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`quick` takes some 30 µs; `slow` takes so much longer that no busy machine hides it."""
    directory = tmp_path_factory.mktemp("modules")
    found = {}
    for name, turns in (("quick", 100_000), ("slow", 5_000_000)):
        found[name] = directory / f"{name}.wasm"
        found[name].write_bytes(wat.binary(spinning(turns)))
    return found


@pytest.fixture(scope="module")
def first_run(modules: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What one run of `quick` wrote: its results, and its page."""
    directory = tmp_path_factory.mktemp("run")
    results, page = directory / "baseline.json", directory / "out.html"
    done = run("bench", modules["quick"], "--json", "--report", page, *SAYING)
    assert (done.returncode, done.stderr) == (0, "")
    results.write_text(done.stdout)
    return results, page


def test_a_module_is_measured_beside_the_smallest(first_run: tuple[Path, Path]) -> None:
    results = orjson.loads(first_run[0].read_bytes())
    assert results["machine"]["cores"] >= 1
    assert results["sides"][0]["name"] == "reference"
    for side in results["sides"]:
        assert len(side["rounds"]) == 6
        figures = side["median"]
        assert 0 < figures["p50_us"] <= figures["p90_us"] <= figures["p99_us"] <= figures["p999_us"]
        assert figures["events_s"] > 0
        assert figures["guest_us"] > 0
        assert figures["cpu_us"] > 0
        counted = sum(count for _, _, count in side["histogram_ns"])
        assert side["answers"].keys() == {"allow"}
        assert counted == side["answers"]["allow"]
    assert results["ratios"]["guest_us"]["between"][0] > 10  # the reference does nothing


def test_its_page_needs_no_other_file(first_run: tuple[Path, Path]) -> None:
    page = first_run[1].read_text()
    assert page.count("<svg") == 4
    assert "quick.wasm is slower" in page
    assert not ELSEWHERE.search(page)


def test_an_unchanged_module_passes(first_run: tuple[Path, Path], modules: dict[str, Path]) -> None:
    done = run("bench", modules["quick"], "--baseline", first_run[0], *SAYING, *TWICE)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^CPU µs/event( +[\d.,]+){3} +[\d.]+ and [\d.]+$", done.stdout, re.MULTILINE)
    assert re.search(
        r"^.*/quick.wasm is slower: [\d.]+ times the CPU per event of reference", done.stdout, re.M
    )


def test_a_slower_module_fails(first_run: tuple[Path, Path], modules: dict[str, Path]) -> None:
    done = run("bench", modules["slow"], "--baseline", first_run[0], *SAYING, *TWICE)
    assert done.returncode == 1
    assert "failed: median latency is " in done.stderr
    assert "failed: CPU per event is " in done.stderr


def test_two_modules_are_compared(modules: dict[str, Path]) -> None:
    done = run("bench", modules["quick"], modules["slow"], *BRIEF)
    assert (done.returncode, done.stderr) == (0, "")
    heads = next(line for line in done.stdout.splitlines() if line.startswith("median of rounds"))
    assert heads.split()[3:6] == [str(modules["quick"]), str(modules["slow"]), "ratio"]
    assert "too few rounds to say whether they differ: it takes 6" in done.stdout


def rounds_of(*ratios: float) -> Results:
    """Two sides whose CPU and latency differ so, round by round."""
    machine, shape = this_machine(), Shape(4, 1, len(ratios), 0.5, "")
    sides = Side("old"), Side("new")
    for ratio in ratios:
        for side, us in zip(sides, (10.0, 10.0 * ratio), strict=True):
            side.rounds.append({**dict.fromkeys(FIGURES), "p50_us": us, "cpu_us": us})
    return Results(machine, shape, *sides)


@pytest.mark.parametrize(
    ("ratios", "count"),
    [
        ((2.0, 2.1, 1.9, 2.0, 2.2, 1.8), 2),  # twice as slow
        ((1.12, 1.11, 1.13, 1.12, 1.11, 1.12), 2),
        ((1.09, 1.08, 1.09, 1.09, 1.08, 1.09), 0),  # within what is allowed
        ((2.0, 2.1, 1.9, 2.0, 2.2, 0.9), 0),  # rounds that differ too much to say so
        ((0.5, 0.5, 0.5, 0.5, 0.5, 0.5), 0),
    ],
)
def test_what_is_slower_is_so_beyond_doubt(ratios: tuple[float, ...], count: int) -> None:
    assert len(slower(rounds_of(*ratios), 10)) == count
    assert all("new" not in line and "times that of old" in line for line in slower(rounds_of(*ratios), 10))


def test_a_baseline_is_what_the_ratios_were() -> None:
    """A module that always took twice what the reference takes is not slower."""
    held_to = {"cpu_us": Ratio.of([2.0, 2.1, 1.9, 2.0, 2.2, 1.8])}
    assert slower(rounds_of(2.0, 2.2, 1.9, 2.1, 2.2, 1.8), 10, held_to) == []
    (line,) = slower(rounds_of(4.0, 4.2, 3.9, 4.1, 4.2, 3.8), 10, held_to)
    assert line.startswith("CPU per event is 102% worse: 4.05 times that of old against 2.00")


# ---- What is sent and answered ----


def test_requests_are_played_in_turn_with_their_bodies(build_wat: BuildWat, tmp_path: Path) -> None:
    """A body follows where the headers were allowed: the module blocks those of over 300 bytes."""
    requests = tmp_path / "requests.json"
    requests.write_bytes(
        orjson.dumps([{"uri": "/a", "body": "b"}, {"headers": {"x": ["a" * 300]}, "body": "never sent"}])
    )
    blocks, redirects = '{"decision":"block"}', '{"decision":"redirect","status":302,"body":"/b"}'
    text = wat.module(
        ALLOWS,
        wat.data(wat.RESULT + 100, blocks.encode()),
        wat.hook(
            f"""(if (i32.gt_u (local.get $n) (i32.const 300))
                (then (return {wat.returns(wat.RESULT + 100, len(blocks))})))"""
            + wat.returns(wat.RESULT, 20)
        ),
        wat.says(redirects, "on_request_body", wat.RESULT + 200),
    )
    answers = measured(build_wat(text), "--requests", requests)["sides"][1]["answers"]
    assert answers.keys() == {"allow", "block", "redirect"}
    assert answers["allow"] == pytest.approx(answers["redirect"], abs=4)
    assert answers["allow"] == pytest.approx(answers["block"], abs=4)


def test_failures_are_no_answers(build_wat: BuildWat) -> None:
    done = run("bench", build_wat(TRAPS), "--json", *BRIEF)
    assert done.returncode == 1
    assert re.search(r"^failed: 100\.0% of the answers of .*\.wasm are failures$", done.stderr, re.MULTILINE)
    assert orjson.loads(done.stdout)["sides"][1]["answers"].keys() == {"failed"}


def test_a_configuration_reaches_the_module(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"a": {"b": [1, "é"]}}')
    measured(RUST, "--module-config", config)
    config.write_text('{"a": null}')
    done = run("bench", RUST, "--module-config", config, *BRIEF)
    assert done.returncode == 2
    assert "--module-config has a null" in done.stderr
    for depth in (250, 900):
        config.write_text('{"a":' * depth + "1" + "}" * depth)
        done = run("bench", RUST, "--module-config", config, *BRIEF)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "--module-config is nested too deeply" in done.stderr


def test_an_agent_that_runs_is_measured(start_agent: StartAgent) -> None:
    agent = start_agent(RUST)
    side = measured(agent.socket, "--in-flight", "16", "--connections", "2")["sides"][1]
    assert side["answers"].keys() == {"allow"}
    assert side["median"]["cpu_us"] > 0
    assert side["median"]["guest_us"] is None


# ---- Agents of other makes ----


def speaks_v1(data: bytes) -> bytes:
    return b"" if data[4] == 1 else v1(b'{"version":1,"decision":{"block":{"status":403}}}')


def shaking_hands(answer: bytes) -> Answer:
    return lambda data: HELLO if data[4] == 1 else answer


def test_an_agent_of_v1_is_measured(agent_that: AgentThat) -> None:
    side = measured(agent_that(speaks_v1))["sides"][1]
    assert side["answers"].keys() == {"block"}


def test_v1_has_one_event_in_flight(agent_that: AgentThat) -> None:
    done = run("bench", agent_that(speaks_v1), "--in-flight", "2", *BRIEF)
    assert done.returncode == 1
    assert "speaks v1, which has one event in flight on a connection" in done.stderr


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda data: b"", "answers neither as v2 nor as v1: the agent closed the connection"),
        (lambda data: b"HTTP/1.1 400 Bad Request\r\n\r\n", "answers neither as v2 nor as v1"),
        (shaking_hands(b""), "the agent closed the connection"),
        (shaking_hands(v2(0x20, b"{}")), "an answer to nothing that is in flight"),
        (shaking_hands(v2(0x42, b"{}")), "a frame of type 0x42 instead of an answer"),
        (shaking_hands(b"\xff" * 8), "a frame of 4294967295 bytes"),
    ],
)
def test_what_is_no_agent_is_said(answer: Answer, why: str, agent_that: AgentThat) -> None:
    done = run("bench", agent_that(answer), *BRIEF)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert why in done.stderr


def test_an_agent_that_says_nothing_is_given_up(
    agent_that: AgentThat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "STALL_S", 0.1)
    over = threading.Event()

    def silent(data: bytes) -> bytes:
        if data[4] == 1:
            return HELLO
        over.wait(10)
        return b""

    path = agent_that(silent)
    with (
        load.Load(path, 2, TYPICAL, 1, 1) as opened,
        pytest.raises(TimeoutError, match=r"no answer for 0\.1 s"),
    ):
        opened.run(0.05)
    over.set()


def test_a_process_may_have_a_name_that_is_no_text() -> None:
    program = "import ctypes; ctypes.CDLL(None).prctl(15, b'\\xff)'); print(flush=True); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.pid in processes.family(os.getpid())
        process.communicate(b"\n")


# ---- What cannot be measured ----


def test_what_is_there_but_no_module_or_agent_is_said(tmp_path: Path) -> None:
    text, nobody = tmp_path / "text", tmp_path / "nobody"
    text.write_text("text")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(nobody))
    for path, why in (
        (tmp_path / "none", "there is neither a module nor a socket: No such file"),
        (tmp_path / ("a" * 300), "there is neither a module nor a socket: File name too long"),
        (text, f"no agent starts for {text}: "),
        (nobody, "nobody to connect to: Connection refused"),
    ):
        done = run("bench", path, *BRIEF)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert why in done.stderr


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{}", "is not a JSON array of objects"),
        ("[", "is not JSON"),
        ('[{}, {"url": "/"}]', "request 2: on_request_headers has no 'url'"),
        ('[{"body": 1}]', "body of the request is 1, expected a string"),
    ],
)
def test_what_is_no_request_is_said(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "requests.json"
    path.write_text(text)
    done = run("bench", RUST, "--requests", path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert why in done.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([RUST, RUST, "--baseline", "b.json"], "--baseline is for one module"),
        ([RUST, "--seconds", "nan"], "nan is no number"),
        ([RUST, "--report", "/no/such/out.html"], "'/no/such/out.html': No such file or directory"),
        ([RUST, "--threshold", "5"], "--threshold wants --baseline or a second module"),
        ([RUST, RUST, "--threshold", "5", "--rounds", "5"], "to say what is slower takes --rounds 6 or more"),
    ],
)
def test_options_that_cannot_be_are_said(arguments: list[str | Path], why: str) -> None:
    done = run("bench", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert why in done.stderr


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: None, "cannot be read: No such file"),
        (lambda data: b"{", "is not JSON"),
        (lambda data: b"[]", "was not written by `bench MODULE --json`"),
        (lambda data: data.replace(b'"reference"', b'"another"'), "was not written by `bench MODULE --json`"),
        (
            lambda data: data.replace(b'"connections":4', b'"connections":5'),
            "of another load: of other connections",
        ),
    ],
)
def test_what_is_no_baseline_is_said(
    change: Callable[[bytes], bytes | None], why: str, first_run: tuple[Path, Path], tmp_path: Path
) -> None:
    shape = Shape(**orjson.loads(first_run[0].read_bytes())["load"])
    path = tmp_path / "b.json"
    if (data := change(first_run[0].read_bytes())) is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=why):
        Baseline(path, shape)


# ---- Figures ----


def test_an_interval_is_as_sure_as_it_says() -> None:
    assert interval([1.0] * 5) is None
    assert interval([6, 5, 4, 3, 2, 1]) == (1, 6)
    assert interval(list(range(1, 10))) == (2, 8)
    assert interval(list(range(1, 21))) == (6, 15)


def test_what_differs_lies_beside_one() -> None:
    assert Ratio.of([1.1, 1.2, 1.1, 1.3, 1.2, 1.1]).differs
    assert not Ratio.of([1.1, 1.2, 0.9, 1.3, 1.2, 1.1]).differs
    assert not Ratio.of([1.1] * 5).differs


def test_buckets_are_narrow_and_hold_their_times() -> None:
    for ns in (0, 1, 127, 128, 1000, 123_456, 10**9):
        ((start, end, count),) = Histogram.of([ns]).buckets
        assert (start <= ns < end, count) == (True, 1)
        assert end - start <= max(1, start / 64)
    assert Histogram.of(range(1000)).total == 1000
