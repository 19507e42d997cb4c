"""The built wheel, installed into an empty virtual environment, away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import sentinel_wasm
from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind

from .conftest import EXAMPLES, ROOT

pytestmark = pytest.mark.parallel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git would hand out: nothing that lies in the checkout by chance.

    Without the optimiser, which takes most of the time and changes nothing that is looked at here.
    """
    source = tmp_path_factory.mktemp("source")
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    for name in files.decode().split("\0"):
        if name.startswith(("sentinel_wasm/", "pyproject.toml", "setup.py", "README.md", "LICENSE")):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        check=True,
        capture_output=True,
        env={**os.environ, "CFLAGS": "-O0"},
    )
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_holds_the_package_and_no_sources_in_c(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert f"sentinel_wasm-{sentinel_wasm.__version__}" in wheel.name
    assert {"sentinel_wasm/py.typed", "sentinel_wasm/_fastpath.pyi"} <= set(names)
    parts = ("index.html", "page.css", "page.js")
    assert {f"sentinel_wasm/server/page/{part}" for part in parts} <= set(names)
    assert {Path(name).suffix for name in names} & {".c", ".pyx"} == set()
    assert sum(name.endswith(".so") for name in names) == 12
    entry_points = f"sentinel_wasm-{sentinel_wasm.__version__}.dist-info/entry_points.txt"
    assert b"[pytest11]\nsentinel-wasm = sentinel_wasm.pytest_plugin\n" in zipfile.ZipFile(wheel).read(
        entry_points
    )
    assert not any(name.startswith(("tests", "examples", "benchmarks")) for name in names)


def test_the_agent_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    bin_ = tmp_path / "venv" / "bin"
    subprocess.run([bin_ / "pip", "install", "--quiet", "--disable-pip-version-check", wheel], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    socket = tmp_path / "s"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command: list[str | Path] = [bin_ / "sentinel-wasm-agent", "--socket", socket]
    command += ["--module", EXAMPLES / "c" / "security.wasm"]
    with subprocess.Popen(command, cwd=empty, env=environment) as agent:
        try:
            end = time.monotonic() + 30
            while not socket.exists() and agent.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            with ClientV2(socket) as client:
                answer = client.ask(EventKind.REQUEST_HEADERS, request_headers("a", uri="/../x"))
            assert answer["decision"]["block"]["status"] == 403
            assert client.handshake["capabilities"]["version"] == sentinel_wasm.__version__
        finally:
            agent.terminate()
    assert agent.returncode == 0
    tool: list[str | Path] = [
        bin_ / "sentinel-wasm",
        "call",
        EXAMPLES / "c" / "security.wasm",
        "http://a/../x",
    ]
    said = subprocess.run(tool, cwd=empty, env=environment, check=True, capture_output=True, text=True).stdout
    assert "decision  block; status 403" in said
