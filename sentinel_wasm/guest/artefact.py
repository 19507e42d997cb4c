"""A module's machine code, made by a child process of ours.

To load machine code is to run it: none from anywhere else may get here.
"""

from __future__ import annotations

import wasmtime

from sentinel_wasm.guest.engine import Engine


class Artefact:
    """Gives a module that has been compiled already; `file` is a sealed memfd, which nobody can change."""

    def __init__(self, file: int, *, from_cache: bool) -> None:
        self._file = file
        self._from_cache = from_cache

    def module(self, engine: Engine, wasm: bytes) -> tuple[wasmtime.Module, bool]:
        """As a Compiler. Raises WasmtimeError where it was made for an engine with other settings."""
        return wasmtime.Module.deserialize_file(engine, f"/proc/self/fd/{self._file}"), self._from_cache
