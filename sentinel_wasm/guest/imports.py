"""What a module may import (guest-abi.md, "Imports a module may use"), as one linker an engine."""

from __future__ import annotations

import ctypes

import wasmtime
from wasmtime import Func, FuncType, Linker, ValType, WasmtimeError
from wasmtime import _ffi as ffi

from sentinel_wasm import _hostcalls
from sentinel_wasm.guest.signatures import describe, signature_of, write

WASI = "wasi_snapshot_preview1"

# WASI's functions of paths, which all say that there is no directory.
_PATHS = {
    "path_create_directory": "iii",
    "path_filestat_get": "iiiii",
    "path_filestat_set_times": "iiiilli",
    "path_link": "iiiiiii",
    "path_open": "iiiiillii",
    "path_readlink": "iiiiii",
    "path_remove_directory": "iii",
    "path_rename": "iiiiii",
    "path_symlink": "iiiii",
    "path_unlink_file": "iii",
}

# The imports served by _hostcalls, as (parameters, results): i for i32, l for i64, d for f64. The rest of
# WASI is wasmtime's own, which answers at once when it has no files, directories, environment or sockets.
_TYPES = {
    (WASI, "clock_time_get"): ("ili", "i"),
    (WASI, "fd_write"): ("iiii", "i"),
    (WASI, "random_get"): ("ii", "i"),
    (WASI, "poll_oneoff"): ("iiii", "i"),
    (WASI, "proc_exit"): ("i", ""),
    ("sentinel", "log"): ("iii", ""),
    ("env", "abort"): ("iiii", ""),
    ("env", "seed"): ("", "d"),
    ("env", "trace"): ("iiddddd", ""),
    **{(WASI, name): (params, "i") for name, params in _PATHS.items()},
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
        callback = ffi.wasmtime_func_unchecked_callback_t(
            _hostcalls.CALLBACKS[module, "path_*" if name in _PATHS else name]
        )
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
    kinds = {"i": ValType.i32, "l": ValType.i64, "d": ValType.f64}
    return [kinds[letter]() for letter in letters]


def problems(linker: Linker, module: wasmtime.Module) -> list[str]:
    """What is wrong with a module's imports, one text each."""
    store = wasmtime.Store(linker.engine)
    found = []
    for item in module.imports:
        name = f"{item.module}.{item.name}"
        try:
            ours = linker.get(store, item.module, item.name or "")
        except WasmtimeError:
            found.append(f"imports {name}, which this agent does not provide")
            continue
        assert isinstance(ours, Func)
        wanted = signature_of(ours.type(store))
        if not isinstance(item.type, FuncType) or signature_of(item.type) != wanted:
            found.append(f"imports {name} as {describe(item.type)}, expected a function {write(wanted)}")
    return found
