"""Binds the compiled code to the library that wasmtime-py has loaded, after checking that they agree."""

from __future__ import annotations

import ctypes

from wasmtime import _ffi as ffi

from sentinel_wasm import _wasmtime
from sentinel_wasm.installed import wasmtime_version

WASMTIME_MAJOR = 50


def bind() -> None:
    """Hand over the C functions' addresses.

    Raises ImportError where the installed wasmtime is another major version, or has other structs.
    """
    installed = wasmtime_version()
    wanted = f"install another with: pip install 'wasmtime>={WASMTIME_MAJOR},<{WASMTIME_MAJOR + 1}'"
    if int(installed.partition(".")[0]) != WASMTIME_MAJOR:
        raise ImportError(f"sentinel-wasm needs wasmtime {WASMTIME_MAJOR}, found {installed}; {wanted}")
    for name, size in _wasmtime.SIZES.items():
        theirs = ctypes.sizeof(getattr(ffi, name))
        if theirs != size:
            raise ImportError(
                f"wasmtime {installed} has a {name} of {theirs} bytes, expected {size}; {wanted}"
            )
    try:
        functions = [getattr(ffi.dll, name) for name in _wasmtime.NAMES]
    except AttributeError as error:
        raise ImportError(f"wasmtime {installed} lacks a function of its C API: {error}; {wanted}") from None
    _wasmtime.bind(tuple(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions))


bind()
