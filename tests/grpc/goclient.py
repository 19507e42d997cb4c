"""The client in grpc-go (goclient/main.go)."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from sentinel_wasm.grpc import agent_pb2 as pb

SOURCE = Path(__file__).parent / "goclient"


def built(directory: Path) -> Path:
    """The program. Raises FileNotFoundError without Go, CalledProcessError where what it needs is missing."""
    if shutil.which("go") is None:
        raise FileNotFoundError("there is no Go")
    program = directory / "goclient"
    subprocess.run(
        ["go", "build", "-o", program, "."], cwd=SOURCE, check=True, capture_output=True, text=True
    )
    return program


def ask(
    program: Path, address: str, directory: Path, events: list[dict[str, Any]], *options: str | Path
) -> list[dict[str, Any]]:
    """What is answered to ProxyToAgents as JSON, on one stream."""
    messages = directory / "messages.pb"
    messages.write_bytes(pb.DESCRIPTOR.serialized_pb)
    done = subprocess.run(
        [program, "-address", address, "-messages", messages, *options, "ask"],
        input="\n".join(map(json.dumps, events)),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
