"""A user's module: loaded, checked against the ABI, and ready to be instantiated many times."""

from __future__ import annotations

import copy
import hashlib
import re
from pathlib import Path

import wasmtime
from wasmtime import FuncType, MemoryType, WasmtimeError
from wasmtime._types import AsExternType

from sentinel_wasm._instances import Plan, cause
from sentinel_wasm.errors import ModuleLoadError
from sentinel_wasm.guest import abi, imports, sections
from sentinel_wasm.guest.cache import NO_CACHE, Compiler
from sentinel_wasm.guest.engine import Engine, address
from sentinel_wasm.guest.limits import MIB, TABLE_ELEMENTS
from sentinel_wasm.guest.signatures import describe, signature_of, write

_I32, _I64 = "i32", "i64"
_HOOK = ([_I32, _I32], [_I64])
_REQUIRED = {"alloc": ([_I32], [_I32]), "dealloc": ([_I32, _I32], [])}
_OPTIONAL = {"_initialize": ([], []), **dict.fromkeys(abi.HOOKS, _HOOK)}
_DECIDING = [abi.HOOKS[hook] for hook in abi.DECIDING]
_MEMORY_OVER_LIMIT = re.compile(r"memory .*minimum byte size of (\d+)")
_OVER_LIMIT = re.compile(r"exceeds the (per-instance )?limit of")


class Module:
    """A compiled module whose exports and imports fit the ABI.

    `hooks[n]` says whether `abi.HOOKS[n]` is exported; `first_hook` is the first of them in a request.
    `sha256` is the file's digest, `digest` its beginning, which logs and metrics have; `from_cache`: it was
    compiled by an earlier start.
    """

    def __init__(
        self,
        engine: Engine,
        wasm: bytes,
        name: str,
        compiler: Compiler = NO_CACHE,
        sha256: str | None = None,
    ) -> None:
        """`sha256`: it must have this digest. Raises ModuleLoadError with everything that is wrong."""
        self.name = name
        self.sha256 = hashlib.sha256(wasm).hexdigest()
        self.digest = self.sha256[: sections.DIGEST_SHOWN]
        if sha256 is not None and sha256.lower() != self.sha256:
            raise ModuleLoadError(
                f"{name}: its SHA-256 digest is {self.sha256}, and --sha256 wants {sha256.lower()}"
            )
        self.engine = engine
        sections.check_magic(wasm, name)
        try:
            self.compiled, self.from_cache = compiler.module(engine, wasm)
        except WasmtimeError as error:
            raise ModuleLoadError(f"{name}: {self._compile_reason(str(error))}") from None
        if names := sections.unspeakable(wasm, {**_REQUIRED, **_OPTIONAL}):
            raise ModuleLoadError(
                f"{name}: types that are neither numbers nor plain references in {', '.join(names)}"
            )
        exports = {export.name: export.type for export in self.compiled.exports}
        linker = imports.make_linker(engine)
        problems = _export_problems(exports) + imports.problems(linker, self.compiled)
        if problems:
            raise ModuleLoadError(f"{name}: " + "; ".join(problems))
        try:
            self.linked = linker.instantiate_pre(self.compiled)
        except WasmtimeError as error:
            raise ModuleLoadError(f"{name}: cannot be linked: {cause(None, str(error))}") from None
        self.hooks = tuple(hook in exports for hook in abi.HOOKS)
        self.first_hook = next(hook for hook in abi.DECIDING if self.hooks[hook])
        self._has_initialize = "_initialize" in exports
        self._uses_wasi = any(item.module == imports.WASI for item in self.compiled.imports)
        self.looks_up_lower_case = sections.looks_up_lower_case(wasm)

    @property
    def hook_names(self) -> list[str]:
        """Those that are exported."""
        return [name for name, there in zip(abi.HOOKS, self.hooks, strict=True) if there]

    def plan(self) -> Plan:
        """What its instances are made from."""
        return Plan(
            (self.engine, self.linked),
            self.engine.ticker,
            address(self.engine),
            address(self.linked),
            abi.HOOKS,
            self.hooks,
            self._uses_wasi,
            self._has_initialize,
            self.engine.memory_bytes,
            TABLE_ELEMENTS,
        )

    def _compile_reason(self, message: str) -> str:
        reason = cause(None, message)
        if not _OVER_LIMIT.search(reason):
            return f"not a valid WebAssembly module: {reason}"
        if memory := _MEMORY_OVER_LIMIT.search(reason):
            limit = self.engine.memory_bytes // MIB
            return f"its memory begins with {memory[1]} bytes, more than --memory-limit allows ({limit} MiB)"
        return f"more than an instance may have: {reason}"

    @classmethod
    def load(
        cls,
        engine: Engine,
        path: Path,
        max_bytes: int = 64 * MIB,
        compiler: Compiler = NO_CACHE,
        sha256: str | None = None,
    ) -> Module:
        """Read and compile a .wasm file, which must have this digest. Raises ModuleLoadError."""
        return cls(engine, sections.read(path, max_bytes), str(path), compiler, sha256)

    def on(self, engine: Engine) -> Module:
        """The same module on another engine, without compiling it again."""
        other = copy.copy(self)
        other.engine = engine
        other.compiled = wasmtime.Module.deserialize(engine, self.compiled.serialize())
        other.linked = imports.make_linker(engine).instantiate_pre(other.compiled)
        return other

    def close(self) -> None:
        """Free the compiled code and its engine, which no other module may use: nothing of it runs any more.

        Any thread may do this.
        """
        self.linked.close()
        self.compiled.close()
        self.engine.end()


def _export_problems(exports: dict[str, AsExternType]) -> list[str]:
    problems = []
    memory = exports.get("memory")
    if memory is None:
        problems.append("export memory is missing")
    elif not isinstance(memory, MemoryType):
        problems.append(f"export memory is {describe(memory)}, expected a memory")
    elif memory.is_64:
        problems.append("export memory is a 64-bit memory, expected a 32-bit one")
    for name, wanted in {**_REQUIRED, **_OPTIONAL}.items():
        found = exports.get(name)
        if found is None:
            if name in _REQUIRED:
                problems.append(f"export {name} is missing, expected {write(wanted)}")
        elif not isinstance(found, FuncType) or signature_of(found) != wanted:
            problems.append(f"export {name} is {describe(found)}, expected {write(wanted)}")
    if not any(name in exports for name in _DECIDING):
        problems.append(f"none of the hooks is exported, expected at least one of {', '.join(_DECIDING)}")
    return problems
