"""Shell completion of both programs, as docs/toolkit.md has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .warm import AGENT, FORGE, TOOLKIT

pytestmark = pytest.mark.parallel

MODULES = {"sentinel-wasm": TOOLKIT, "sentinel-wasm-agent": AGENT}


def complete(program: str, instruction: str, **variables: str) -> str:
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
    done = FORGE.run(MODULES[program], environment={**os.environ, variable: instruction, **variables})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", MODULES)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(program: str, shell: str) -> None:
    assert program in complete(program, f"{shell}_source")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sentinel-wasm tr", {"trace"}),
        ("sentinel-wasm trace --de", {"--decision"}),
        ("sentinel-wasm trace --decision b", {"block"}),
        ("sentinel-wasm-agent --iso", {"--isolation"}),
        ("sentinel-wasm-agent --isolation ", {"pooled", "request"}),
        ("sentinel-wasm-agent --config none.toml --head", {"--header-names", "--header-values"}),
    ],
)
def test_what_it_offers(line: str, expected: set[str]) -> None:
    words = line.split(" ")
    said = complete(words[0], "zsh_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    # Three lines each: its type, the word, what it is.
    assert set(said.splitlines()[1::3]) == expected


@pytest.mark.parametrize("program", MODULES)
def test_bash_takes_the_script(program: str) -> None:
    function = f"_{program.replace('-', '_')}_completion"
    script = f"""
        {complete(program, "bash_source")}
        complete -p {program}
        COMP_WORDS=({program} --hel) COMP_CWORD=1
        {function} {program}
        echo "${{COMPREPLY[@]}}"
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    said = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": path},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.stdout == f"complete -o nosort -F {function} {program}\n--help\n"
