"""The built wheel, installed into an empty virtual environment, away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import sentinel_wasm
from sentinel_wasm.cli import new
from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind

from .conftest import EXAMPLES, ROOT

pytestmark = pytest.mark.parallel


PARTS = ("sentinel_wasm/", "examples/sdk/", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git would hand out: nothing that lies in the checkout by chance, but for
    what builds leave beside the SDKs.

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
        if name.startswith(PARTS):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
    for left in ("target/a.rlib", "node_modules/a.js"):
        (source / "examples/sdk/c" / left).parent.mkdir()
        (source / "examples/sdk/c" / left).touch()
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        check=True,
        capture_output=True,
        env={**os.environ, "CFLAGS": "-O0"},
    )
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def bin_(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs are that pip made of it."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip: list[str | Path] = [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", wheel]
    subprocess.run(pip, check=True)
    return venv / "bin"


ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def test_the_wheel_holds_the_package_and_no_sources_in_c(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert f"sentinel_wasm-{sentinel_wasm.__version__}" in wheel.name
    assert {"sentinel_wasm/py.typed", "sentinel_wasm/_fastpath.pyi"} <= set(names)
    assert "sentinel_wasm/grpc/agent.proto" in names
    parts = ("index.html", "page.css", "page.js")
    assert {f"sentinel_wasm/server/page/{part}" for part in parts} <= set(names)
    ours = [name for name in names if not name.startswith("sentinel_wasm/templates/")]
    assert {Path(name).suffix for name in ours} & {".c", ".pyx"} == set()
    assert sum(name.endswith(".so") for name in names) == 13
    entry_points = f"sentinel_wasm-{sentinel_wasm.__version__}.dist-info/entry_points.txt"
    assert b"[pytest11]\nsentinel-wasm = sentinel_wasm.pytest_plugin\n" in zipfile.ZipFile(wheel).read(
        entry_points
    )
    assert not any(name.startswith(("tests", "examples", "benchmarks")) for name in names)
    assert not any({"target", "node_modules"} & set(Path(name).parts) for name in names)


def test_the_agent_runs_from_the_wheel_alone(bin_: Path, tmp_path: Path) -> None:
    socket = tmp_path / "s"
    command: list[str | Path] = [bin_ / "sentinel-wasm-agent", "--socket", socket]
    command += ["--module", EXAMPLES / "c" / "security.wasm"]
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT) as agent:
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


def test_the_toolkit_runs_from_the_wheel_alone(bin_: Path, tmp_path: Path) -> None:
    """What it makes is what the checkout makes."""
    for language in new.LANGUAGES:
        made, wanted = tmp_path / language, tmp_path / "wanted" / language
        wanted.parent.mkdir(exist_ok=True)
        new.make(wanted, language, "bot")
        command: list[str | Path] = [bin_ / "sentinel-wasm", "new", language, "--lang", language]
        command += ["--template", "bot"]
        subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, check=True, capture_output=True)
        assert contents(made) == contents(wanted)
    tool: list[str | Path] = [
        bin_ / "sentinel-wasm",
        "call",
        EXAMPLES / "c" / "security.wasm",
        "http://a/../x",
    ]
    done = subprocess.run(tool, cwd=tmp_path, env=ENVIRONMENT, check=True, capture_output=True, text=True)
    assert "decision  block; status 403" in done.stdout


def contents(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Of every file: what is in it, and whether it can be run."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), os.access(path, os.X_OK))
        for path in folder.rglob("*")
        if path.is_file()
    }
