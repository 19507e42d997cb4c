"""What a module may import (guest-abi.md, "Imports a module may use"), as one linker an engine."""

from __future__ import annotations

import ctypes

import wasmtime
from wasmtime import FuncType, Linker, ValType, WasmtimeError
from wasmtime import _ffi as ffi

from sentinel_wasm import _hostcalls

WASI = "wasi_snapshot_preview1"

# The imports served by _hostcalls, as (parameters, results) with i for i32 and d for f64. The rest of WASI is
# wasmtime's own, which answers at once when it has no files, directories, environment, arguments or sockets.
_TYPES = {
    (WASI, "fd_write"): ("iiii", "i"),
    (WASI, "random_get"): ("ii", "i"),
    (WASI, "poll_oneoff"): ("iiii", "i"),
    (WASI, "proc_exit"): ("i", ""),
    ("sentinel", "log"): ("iii", ""),
    ("env", "abort"): ("iiii", ""),
    ("env", "seed"): ("", "d"),
    ("env", "trace"): ("iiddddd", ""),
}

_no_finalizer = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(0)


def make_linker(engine: wasmtime.Engine) -> Linker:
    """A linker with every import a module may use."""
    linker = Linker(engine)
    linker.allow_shadowing = True
    linker.define_wasi()
    for (module, name), (params, results) in _TYPES.items():
        # Made anew each time: wasmtime aborts the process where one type is used with a second engine.
        kind = FuncType(_types(params), _types(results))
        callback = ffi.wasmtime_func_unchecked_callback_t(_hostcalls.CALLBACKS[module, name])
        error = ffi.wasmtime_linker_define_func_unchecked(
            linker.ptr(),
            ctypes.create_string_buffer(module.encode()),
            len(module),
            ctypes.create_string_buffer(name.encode()),
            len(name),
            kind.ptr(),
            callback,
            None,
            _no_finalizer,
        )
        if error:
            raise WasmtimeError._from_ptr(error)
    return linker


def _types(letters: str) -> list[ValType]:
    return [ValType.f64() if letter == "d" else ValType.i32() for letter in letters]


def unknown_imports(linker: Linker, module: wasmtime.Module) -> list[str]:
    """The module's imports that nothing here serves, as `module.name`."""
    store = wasmtime.Store(linker.engine)
    unknown = []
    for item in module.imports:
        try:
            linker.get(store, item.module, item.name or "")
        except WasmtimeError:
            unknown.append(f"{item.module}.{item.name}")
    return unknown
