"""docs/tutorial.md, command by command, with the real v2 proxy."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ..conftest import PATIENT, ROOT
from .proxy import SENTINEL, TIMEOUT, ZENTINEL, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.parallel]

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
_BLOCK = re.compile(r'^```(\w+)(?: title="(\S+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_MARK = "--- "
_WITHIN_S = 60.0


class Step(NamedTuple):
    """A command, and what the page shows of its output; nothing shown, nothing compared."""

    command: str
    shown: str


def steps(page: str) -> Iterator[Step]:
    """In the page's order. What has a title is the text of a file."""
    for kind, title, text in _BLOCK.findall(page):
        if title:
            yield Step(f"cat > {title} <<'END OF FILE'\n{text}END OF FILE", "")
        else:
            assert kind == "console"
            assert text.startswith("$ ")
            for part in text.removeprefix("$ ").split("\n$ "):
                command, _, shown = part.partition("\n")
                yield Step(command, shown.strip("\n"))


def here(page: str, directory: Path) -> str:
    """The page with ports, socket and patience that fit a test."""
    changes = {
        "127.0.0.1:8080": f"127.0.0.1:{free_port()}",
        "3000": str(free_port()),
        "/tmp/my-filter.sock": str(directory / "s"),
        TIMEOUT: "timeout-ms 1000",
    }
    assert all(old in page for old in changes)
    return re.sub("|".join(map(re.escape, changes)), lambda found: changes[found[0]], page)


def test_every_command_of_the_tutorial(tmp_path: Path) -> None:
    (tmp_path / "sentinel-wasm").symlink_to(ROOT)
    said = list(steps(here(PAGE, tmp_path)))
    script = tmp_path / "tutorial.sh"
    script.write_text("set -e\n" + "".join(f"echo '{_MARK}'\n{step.command}\n" for step in said))
    log = tmp_path / "tutorial.log"
    binaries = {kind.variable: str(kind.binary()) for kind in (ZENTINEL, SENTINEL)}
    with log.open("wb") as out:
        shell = subprocess.Popen(
            ["bash", script],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            env={**os.environ, **PATIENT, **binaries},
            start_new_session=True,
        )
    try:
        status = shell.wait(_WITHIN_S)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(shell.pid, signal.SIGKILL)  # the proxy takes its time to shut down
        shell.wait()
    output = log.read_text()
    assert status == 0, output
    found = output.split(f"{_MARK}\n")[1:]
    assert len(found) == len(said)
    for step, text in zip(said, found, strict=True):
        if step.shown:
            pattern = re.escape(step.shown).replace("…", ".*")
            assert re.fullmatch(pattern, text.strip("\r\n"), re.DOTALL), f"$ {step.command}\n{text}"
