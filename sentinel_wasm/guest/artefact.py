"""A module's machine code, made by a child process of ours.

To load machine code is to run it: none from anywhere else may get here.
"""

from __future__ import annotations

import os
import sys

import wasmtime

from sentinel_wasm.guest.engine import Engine


class Artefact:
    """Gives a module that has been compiled already; `file` is a descriptor of `server.nameless`."""

    def __init__(self, file: int, *, from_cache: bool) -> None:
        self._file = file
        self._from_cache = from_cache

    def module(self, engine: Engine, wasm: bytes) -> tuple[wasmtime.Module, bool]:
        """As a Compiler. Raises WasmtimeError where it was made for an engine with other settings."""
        if sys.platform == "linux":  # it is sealed: what is mapped stays as it is
            module = wasmtime.Module.deserialize_file(engine, f"/proc/self/fd/{self._file}")
        else:
            code = os.pread(self._file, os.fstat(self._file).st_size, 0)
            module = wasmtime.Module.deserialize(engine, code)
        return module, self._from_cache
