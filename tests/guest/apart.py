"""Python in a process of its own, for what might end the process."""

from __future__ import annotations

import subprocess
import sys


def run_python(program: str, text: str) -> str:
    """What a program prints, with this text as its standard input; AssertionError where it fails."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[:1000]
    return done.stdout
