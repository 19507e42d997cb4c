"""What is true of the agent as such, with workers and without."""

from __future__ import annotations

import os
import time
from typing import Any

from sentinel_wasm import __version__
from sentinel_wasm.installed import wasmtime_version
from sentinel_wasm.server import usage


def facts() -> dict[str, Any]:
    """For `/status.json`."""
    started = usage.started()
    return {
        "version": __version__,
        "wasmtime": wasmtime_version(),
        "pid": os.getpid(),
        "started": started,
        "uptime_s": round(time.time() - started, 3),
    }
