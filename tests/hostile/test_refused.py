"""A module that cannot be used is one clear line, in time; nothing is left behind and nobody else minds."""

from __future__ import annotations

import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ..conftest import BuildWat, StartAgent
from ..warm import AGENT, FORGE
from . import agents
from .agents import Watched
from .case import Refused, module, names
from .refused import ENDLESS, REFUSED

pytestmark = pytest.mark.parallel

START_LIMIT_S = 10
# What an agent may take to load beside many others on a busy machine.
LOAD_S = 10


def refused(case: Refused, file: Path, socket: Path, *mode: str) -> str:
    """The agent does not start; what it says on stderr."""
    options = ("--socket", str(socket), "--module", str(file), *case.options, *mode)
    try:
        done = FORGE.run(AGENT, *options, timeout=START_LIMIT_S + LOAD_S)
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"{case.name}: still there after {late.timeout} s") from None
    assert done.returncode == 1, (case.name, done.stderr)
    (line,) = done.stderr.splitlines()
    assert line.startswith("sentinel-wasm-agent: "), line
    assert re.search(case.says, line), line
    assert not re.search("0x[0-9a-f]{4}", line), line
    return line


@pytest.mark.parametrize("case", REFUSED, ids=names(REFUSED))
def test_module_is_refused_in_one_line(build_wat: BuildWat, tmp_path: Path, case: Refused) -> None:
    """In both fail modes."""
    file = build_wat(case.text)
    folder = tmp_path / "s"
    folder.mkdir()
    assert refused(case, file, folder / "s") == refused(case, file, folder / "s", "--fail-open")
    assert list(folder.iterdir()) == []


def test_starts_that_never_end_are_refused_in_time(build_wat: BuildWat, tmp_path: Path) -> None:
    """In both fail modes, all at once."""
    files = [build_wat(case.text) for case in ENDLESS]
    began = time.monotonic()
    with ThreadPoolExecutor(2 * len(ENDLESS)) as waiting:
        runs = [
            waiting.submit(refused, case, file, tmp_path / f"s{number}{len(mode)}", *mode)
            for number, (case, file) in enumerate(zip(ENDLESS, files, strict=True))
            for mode in ((), ("--fail-open",))
        ]
        for run in runs:
            run.result()
    assert time.monotonic() - began >= START_LIMIT_S
    assert list(tmp_path.glob("s*")) == []


def test_many_refused_at_once_leave_the_agent_on_their_path_alone(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    agent = agents.start(start_agent, build_wat(module()), fail_open=False)
    watched = Watched(agent, fail_open=False)
    cases = REFUSED[:: len(REFUSED) // 10]
    files = [build_wat(case.text) for case in cases]
    with agent.v2() as client, ThreadPoolExecutor(len(cases)) as waiting:
        watched.good(client)
        for _ in waiting.map(lambda case, file: refused(case, file, agent.socket), cases, files):
            pass
        watched.good(client)
    with agent.v2() as fresh:
        watched.good(fresh)
    watched.stop()
