"""A user's module: loaded, checked against the ABI, and ready to be instantiated many times."""

from __future__ import annotations

from pathlib import Path

import wasmtime
from wasmtime import Config, Engine, FuncType, MemoryType, ValType, WasmtimeError
from wasmtime._types import AsExternType

from sentinel_wasm.errors import ModuleLoadError
from sentinel_wasm.guest import abi, imports, sections

_I32, _I64 = "i32", "i64"
_HOOK = ([_I32, _I32], [_I64])
_REQUIRED = {"alloc": ([_I32], [_I32]), "dealloc": ([_I32, _I32], [])}
_OPTIONAL = {"_initialize": ([], []), **dict.fromkeys(abi.HOOKS, _HOOK)}
_DECIDING = abi.HOOKS[:4]

Signature = tuple[list[str], list[str]]


def make_engine() -> Engine:
    """The engine all modules of this process share."""
    config = Config()
    config.wasm_threads = False
    config.wasm_memory64 = False
    return Engine(config)


class Module:
    """A compiled module whose exports and imports fit the ABI.

    `hooks[n]` says whether `abi.HOOKS[n]` is exported.
    """

    def __init__(self, engine: Engine, wasm: bytes, name: str) -> None:
        """Raises ModuleLoadError with everything that is wrong."""
        self.name = name
        self.engine = engine
        sections.check_magic(wasm, name)
        try:
            self.compiled = wasmtime.Module(engine, wasm)
        except WasmtimeError as error:
            raise ModuleLoadError(f"{name}: not a valid WebAssembly module: {first_line(error)}") from None
        exports = {export.name: export.type for export in self.compiled.exports}
        linker = imports.make_linker(engine)
        problems = _export_problems(exports) + [
            f"imports {unknown}, which this agent does not provide"
            for unknown in imports.unknown_imports(linker, self.compiled)
        ]
        if problems:
            raise ModuleLoadError(f"{name}: " + "; ".join(problems))
        try:
            self.linked = linker.instantiate_pre(self.compiled)
        except WasmtimeError as error:
            raise ModuleLoadError(f"{name}: cannot be linked: {first_line(error)}") from None
        self.hooks = tuple(hook in exports for hook in abi.HOOKS)
        self.has_initialize = "_initialize" in exports
        self.uses_wasi = any(item.module == imports.WASI for item in self.compiled.imports)
        self.looks_up_lower_case = sections.looks_up_lower_case(wasm)

    @classmethod
    def load(cls, engine: Engine, path: Path) -> Module:
        """Read and compile a .wasm file. Raises ModuleLoadError."""
        try:
            wasm = path.read_bytes()
        except OSError as error:
            raise ModuleLoadError(f"cannot read the module {path}: {error.strerror}") from None
        return cls(engine, wasm, str(path))


def first_line(error: Exception) -> str:
    """The cause in wasmtime's message, without backtrace or hints: its last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("0: ") if lines else "no reason given"


def _export_problems(exports: dict[str, AsExternType]) -> list[str]:
    problems = []
    memory = exports.get("memory")
    if memory is None:
        problems.append("export memory is missing")
    elif not isinstance(memory, MemoryType):
        problems.append(f"export memory is {_describe(memory)}, expected a memory")
    elif memory.is_64:
        problems.append("export memory is a 64-bit memory, expected a 32-bit one")
    for name, wanted in {**_REQUIRED, **_OPTIONAL}.items():
        found = exports.get(name)
        if found is None:
            if name in _REQUIRED:
                problems.append(f"export {name} is missing, expected {_signature(wanted)}")
        elif not isinstance(found, FuncType) or _types(found) != wanted:
            problems.append(f"export {name} is {_describe(found)}, expected {_signature(wanted)}")
    if not any(name in exports for name in _DECIDING):
        problems.append(f"none of the hooks is exported, expected at least one of {', '.join(_DECIDING)}")
    return problems


def _types(function: FuncType) -> Signature:
    return [_word(kind) for kind in function.params], [_word(kind) for kind in function.results]


def _word(kind: ValType) -> str:
    return str(kind)


def _describe(kind: AsExternType) -> str:
    if isinstance(kind, FuncType):
        return f"a function {_signature(_types(kind))}"
    return "a " + type(kind).__name__.removesuffix("Type").lower()


def _signature(types: Signature) -> str:
    params, results = types
    return f"({', '.join(params)}) → {', '.join(results) or '()'}"
