"""What is forked is a process of its own, and the same as one that is started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import EXAMPLES, StartAgent
from .warm import AGENT, FORGE, TOOLKIT

pytestmark = pytest.mark.parallel

C_EXAMPLE = str(EXAMPLES / "c" / "security.wasm")
REQUEST = b'{"uri": 1}'


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (AGENT, ("--config", "agent.toml", "--print-config")),
        (AGENT, ("--nonsense",)),
        (TOOLKIT, ("--version",)),
        (TOOLKIT, ("call", C_EXAMPLE, "-")),
    ],
)
def test_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "agent.toml").write_text("pool-size = 7\n")
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "WASM_QUEUE_LIMIT": "77"}
    command = [sys.executable, "-m", program, *arguments]
    cold = subprocess.run(command, input=REQUEST, capture_output=True, env=environment, timeout=60)
    warm = FORGE.run(program, *arguments, data=REQUEST, environment=environment)
    assert warm.returncode == cold.returncode
    assert (warm.stdout, warm.stderr) == (cold.stdout.decode(), cold.stderr.decode())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_each_has_an_end_of_its_own(start_agent: StartAgent, number: int) -> None:
    one, other = start_agent(Path(C_EXAMPLE)), start_agent(Path(C_EXAMPLE))
    assert one.stop(number) == (-number if number == signal.SIGKILL else 0)
    with pytest.raises(ProcessLookupError):
        os.kill(one.process.pid, 0)
    assert other.process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        other.process.wait(0.01)


def test_what_takes_too_long_is_killed(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        FORGE.run(AGENT, "--module", C_EXAMPLE, "--socket", tmp_path / "s", timeout=0.1)
    assert FORGE.run(TOOLKIT, "--version").returncode == 0
