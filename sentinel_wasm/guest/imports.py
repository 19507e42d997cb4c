"""What a module may import (guest-abi.md, "Imports a module may use"), as one linker an engine."""

from __future__ import annotations

import ctypes

import wasmtime
from wasmtime import FuncType, Linker, ValType, WasmtimeError
from wasmtime import _ffi as ffi

from sentinel_wasm import _hostcalls

WASI = "wasi_snapshot_preview1"

_I32, _F64 = ValType.i32, ValType.f64

# The imports served by _hostcalls. The rest of WASI is wasmtime's own, which answers at once when it has no
# files, directories, environment, arguments or sockets to offer.
_TYPES = {
    (WASI, "fd_write"): FuncType([_I32()] * 4, [_I32()]),
    (WASI, "random_get"): FuncType([_I32()] * 2, [_I32()]),
    (WASI, "poll_oneoff"): FuncType([_I32()] * 4, [_I32()]),
    (WASI, "proc_exit"): FuncType([_I32()], []),
    ("sentinel", "log"): FuncType([_I32()] * 3, []),
    ("env", "abort"): FuncType([_I32()] * 4, []),
    ("env", "seed"): FuncType([], [_F64()]),
    ("env", "trace"): FuncType([_I32()] * 2 + [_F64()] * 5, []),
}

_no_finalizer = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(0)


def make_linker(engine: wasmtime.Engine) -> Linker:
    """A linker with every import a module may use."""
    linker = Linker(engine)
    linker.allow_shadowing = True
    linker.define_wasi()
    for (module, name), kind in _TYPES.items():
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
