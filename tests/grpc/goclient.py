"""The client in grpc-go (goclient/main.go)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "goclient"


def built(directory: Path) -> Path:
    """The program. Raises OSError or subprocess.CalledProcessError where Go, or what it needs, is missing."""
    if shutil.which("go") is None:
        raise FileNotFoundError("no go: install Go 1.25 or newer")
    program = directory / "goclient"
    subprocess.run(
        ["go", "build", "-o", program, "."], cwd=SOURCE, check=True, capture_output=True, text=True
    )
    return program
