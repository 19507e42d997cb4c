"""A module that cannot be used is one clear line, in time; nothing is left behind and nobody else minds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import wasmtime

from ..conftest import BuildWat, StartAgent
from . import agents
from .agents import Watched
from .case import Refused, module, names
from .refused import ENDLESS, REFUSED

pytestmark = pytest.mark.parallel

START_LIMIT_S = 10
# What an agent may take to load beside many others on a busy machine.
LOAD_S = 10

AGENT = ("-m", "sentinel_wasm.cli.agent")
# The command line's own main in both fail modes: most of what a refused agent does is to load Python.
TWICE = (
    "-c",
    """if True:
        import sys
        from sentinel_wasm.cli.agent import main

        for mode in ([], ["--fail-open"]):
            try:
                main([*sys.argv[1:], *mode])
            except SystemExit as end:
                print(end.code)
    """,
)

Started = tuple[Refused, "subprocess.Popen[str]"]


def started(program: tuple[str, ...], file: Path, socket: Path, case: Refused, *mode: str) -> Started:
    options = ["--socket", str(socket), "--module", str(file), *case.options, *mode]
    process = subprocess.Popen(
        [sys.executable, *program, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    return case, process


def output(run: Started, within_s: float) -> tuple[str, str]:
    """What it wrote to stdout and stderr by its end."""
    case, process = run
    try:
        return process.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise AssertionError(f"{case.name}: still there after {within_s} s") from None


def check_line(case: Refused, line: str) -> None:
    assert line.startswith("sentinel-wasm-agent: "), line
    assert re.search(case.says, line), line
    assert not re.search("0x[0-9a-f]{4}", line), line


def check_refused(run: Started, within_s: float) -> None:
    case, process = run
    _, said = output(run, within_s)
    assert process.returncode == 1, (case.name, said)
    (line,) = said.splitlines()
    check_line(case, line)


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, str, list[Path]]]:
    """Each chosen case's stdout, stderr and what was left in the folder of its socket; two run at a time."""
    chosen = {item.callspec.id for item in request.session.items if hasattr(item, "callspec")}

    def run(case: Refused) -> tuple[str, str, list[Path]]:
        folder = tmp_path_factory.mktemp("r")
        file = folder / "module.wasm"
        file.write_bytes(wasmtime.wat2wasm(case.text))
        (folder / "s").mkdir()
        said = output(started(TWICE, file, folder / "s" / "s", case), 2 * START_LIMIT_S)
        return *said, list((folder / "s").iterdir())

    cases = [case for case in REFUSED if case.name in chosen]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names(cases), pool.map(run, cases), strict=True))


@pytest.mark.parametrize("case", REFUSED, ids=names(REFUSED))
def test_module_is_refused_in_one_line(
    outcomes: dict[str, tuple[str, str, list[Path]]], case: Refused
) -> None:
    """In both fail modes."""
    statuses, said, left = outcomes[case.name]
    assert statuses == "1\n1\n", said
    first, second = said.splitlines()
    check_line(case, first)
    assert second == first
    assert left == []


def test_starts_that_never_end_are_refused_in_time(build_wat: BuildWat, tmp_path: Path) -> None:
    """In both fail modes, all at once."""
    began = time.monotonic()
    runs = []
    for number, case in enumerate(ENDLESS):
        file = build_wat(case.text)
        for mode in ((), ("--fail-open",)):
            runs.append(started(AGENT, file, tmp_path / f"s{number}{len(mode)}", case, *mode))
    with ThreadPoolExecutor(len(runs)) as waiting:
        for _ in waiting.map(lambda run: check_refused(run, START_LIMIT_S + LOAD_S), runs):
            pass
    assert time.monotonic() - began >= START_LIMIT_S
    assert list(tmp_path.glob("s*")) == []


def test_many_refused_at_once_leave_the_agent_on_their_path_alone(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    agent = agents.start(start_agent, build_wat(module()), fail_open=False)
    watched = Watched(agent, fail_open=False)
    cases = REFUSED[:: len(REFUSED) // 10]
    with agent.v2() as client:
        watched.good(client)
        runs = [started(AGENT, build_wat(case.text), agent.socket, case) for case in cases]
        for run in runs:
            check_refused(run, START_LIMIT_S + LOAD_S)
        watched.good(client)
    with agent.v2() as fresh:
        watched.good(fresh)
    watched.stop()
