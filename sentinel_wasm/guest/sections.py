"""What can be read off a wasm binary without running it."""

from __future__ import annotations

from collections.abc import Iterator

from sentinel_wasm.errors import ModuleLoadError

_MAGIC = b"\0asm"
_CORE_VERSION = b"\1\0\0\0"
_DATA_SECTION = 11

# Names that mean a header and hardly anything else.
_HEADER_NAMES = (
    "User-Agent",
    "Authorization",
    "Content-Type",
    "Content-Length",
    "Accept-Language",
    "Accept-Encoding",
    "X-Forwarded-For",
    "X-Api-Key",
    "X-Request-Id",
    "Set-Cookie",
)


def check_magic(wasm: bytes, name: str) -> None:
    """Raises ModuleLoadError where the bytes are no core module (wasm's binary format, "Modules")."""
    if wasm[:4] != _MAGIC:
        raise ModuleLoadError(f"{name}: not a WebAssembly binary (it begins with {wasm[:4]!r}, not \\0asm)")
    if wasm[4:8] != _CORE_VERSION:
        raise ModuleLoadError(
            f"{name}: not a core WebAssembly module of version 1; a component must be built as a core module"
        )


def looks_up_lower_case(wasm: bytes) -> bool:
    """Whether the module's data holds well-known header names in lower case and none in canonical form.

    Such a module looks up `user-agent` and finds nothing under canonical names. AssemblyScript's strings are
    UTF-16.
    """
    data = b"\0".join(content for number, content in _sections(wasm) if number == _DATA_SECTION)
    lower = canonical = False
    for encoding in ("ascii", "utf-16-le"):
        canonical = canonical or any(name.encode(encoding) in data for name in _HEADER_NAMES)
        lower = lower or any(name.lower().encode(encoding) in data for name in _HEADER_NAMES)
    return lower and not canonical


def _sections(wasm: bytes) -> Iterator[tuple[int, bytes]]:
    """(section number, content) of a module that wasmtime has accepted."""
    at = len(_MAGIC) + len(_CORE_VERSION)
    while at < len(wasm):
        number = wasm[at]
        size, at = _leb128(wasm, at + 1)
        yield number, wasm[at : at + size]
        at += size


def _leb128(wasm: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = wasm[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at
