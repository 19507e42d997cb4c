"""Modules as WebAssembly text, from one template, and the addresses that the tests speak of."""

from __future__ import annotations

import struct

import wasmtime

PAGE = 65536
OUT = 512  # where a `caller` leaves what its import returned
INPUT = 1024  # what `alloc` returns
RESULT = 16384  # where `says` keeps its text

WASI = "wasi_snapshot_preview1"
REALTIME, MONOTONIC = 0, 1
RELATIVE, ABSOLUTE = 0, 1


def module(
    *fields: str,
    imports: str = "",
    pages: int = 1,
    alloc: str = f"(i32.const {INPUT})",
    dealloc: str = "",
) -> str:
    """A module that fits the ABI but for its hooks, which are among `fields`.

    `alloc` is the function's body (its parameter is $n), `dealloc` too ($p, $n).
    """
    return f"""(module
    {imports}
    (memory (export "memory") {pages})
    (func (export "alloc") (param $n i32) (result i32) {alloc})
    (func (export "dealloc") (param $p i32) (param $n i32) {dealloc})
    {" ".join(fields)})"""


def hook(body: str, name: str = "on_request_headers") -> str:
    """A hook; its input is $n bytes at $p, and it may use $i (i32) and $w (i64)."""
    return (
        f'(func (export "{name}") (param $p i32) (param $n i32) (result i64)'
        f" (local $i i32) (local $w i64) {body})"
    )


def returns(pointer: int, length: int) -> str:
    """The i64 a hook returns for a result of `length` bytes at `pointer`."""
    return f"(i64.const {pointer << 32 | length})"


def says(text: str | bytes, name: str = "on_request_headers", at: int = RESULT) -> str:
    """A hook that always returns this text."""
    raw = text.encode() if isinstance(text, str) else text
    return data(at, raw) + hook(returns(at, len(raw)), name)


def data(at: int, raw: bytes) -> str:
    return f'(data (i32.const {at}) "{literal(raw)}")'


def literal(raw: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in raw)


def imported(name: str, parameters: str, result: str = "") -> str:
    """The import `module.name` as a function $name."""
    module_name, _, function = name.partition(".")
    results = f"(result {result})" if result else ""
    return f'(import "{module_name}" "{function}" (func ${function} (param {parameters}) {results}))'


def clock(timeout_ns: int, *, which: int = MONOTONIC, flags: int = RELATIVE, userdata: int = 7) -> bytes:
    """What poll_oneoff is given to wait for a time: 48 bytes (WASI preview 1, `subscription`)."""
    return struct.pack("<QB7xI4xQQH6x", userdata, 0, which, timeout_ns, 0, flags)


def caller(name: str, parameters: str, result: str = "", *, pages: int = 1) -> str:
    """A module that calls an import with what its input says, eight bytes an argument.

    What the import returns is kept at OUT, and the hook returns the first page from its byte 8 on.
    """
    arguments = " ".join(
        f"({kind}.load (i32.add (local.get $p) (i32.const {8 * index})))"
        for index, kind in enumerate(parameters.split())
    )
    call = f"(call ${name.partition('.')[2]} {arguments})"
    kept = f"({result}.store (i32.const {OUT}) {call})" if result else call
    return module(hook(kept + returns(8, PAGE - 8)), imports=imported(name, parameters, result), pages=pages)


def binary(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))
