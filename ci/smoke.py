"""Whether an installed wheel works: the toolkit runs, an agent starts, answers and stops.

Run with the Python that has it, away from the checkout: python …/ci/smoke.py MODULE, the module being
examples/c/security.wasm.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import sentinel_wasm
from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind

PROGRAMS = Path(sysconfig.get_path("scripts"))
ATTACK = "/../x"


def toolkit_calls(module: Path) -> None:
    command: list[str | Path] = [PROGRAMS / "sentinel-wasm", "call", module, f"http://a{ATTACK}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert "decision  block; status 403" in done.stdout, done.stdout


def agent_answers(module: Path, socket: Path) -> None:
    command: list[str | Path] = [PROGRAMS / "sentinel-wasm-agent", "--socket", socket, "--module", module]
    with subprocess.Popen(command) as agent:
        try:
            end = time.monotonic() + 60
            while not socket.exists() and agent.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            with ClientV2(socket) as client:
                answer = client.ask(EventKind.REQUEST_HEADERS, request_headers("a", uri=ATTACK))
                assert client.handshake["capabilities"]["version"] == sentinel_wasm.__version__
            assert answer["decision"]["block"]["status"] == 403, answer
        finally:
            agent.terminate()
    assert agent.returncode == 0, agent.returncode


if __name__ == "__main__":
    module = Path(sys.argv[1])
    toolkit_calls(module)
    with tempfile.TemporaryDirectory() as directory:
        agent_answers(module, Path(directory) / "s")
    print(f"sentinel-wasm {sentinel_wasm.__version__} in {Path(sentinel_wasm.__file__).parent} works")
