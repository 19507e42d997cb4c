"""A wasm binary: its bytes, and what can be read off them without running it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from sentinel_wasm.errors import ModuleLoadError
from sentinel_wasm.guest.limits import MIB

DIGEST_SHOWN = 12  # of a module's digest, in logs and metrics
_MAGIC = b"\0asm"
_CORE_VERSION = b"\1\0\0\0"
_TYPES, _IMPORTS, _FUNCTIONS, _EXPORTS, _DATA = 1, 2, 3, 7, 11
_FUNCTION = 0
_NULLABLE, _NOT_NULLABLE = 0x63, 0x64

# The value types that wasmtime's C API can speak of: i32 i64 f32 f64 funcref externref.
_SPEAKABLE = frozenset(b"\x7f\x7e\x7d\x7c\x70\x6f")

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


def read(path: Path, max_bytes: int) -> bytes:
    """A .wasm file's bytes. Raises ModuleLoadError."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise ModuleLoadError(
                f"{path}: {size} bytes, more than --max-module-size allows ({max_bytes // MIB} MiB)"
            )
        return path.read_bytes()
    except OSError as error:
        raise ModuleLoadError(f"cannot read the module {path}: {error.strerror}") from None


def check_magic(wasm: bytes, name: str) -> None:
    """Raises ModuleLoadError where the bytes are no core module (wasm's binary format, "Modules")."""
    if wasm[:4] != _MAGIC:
        raise ModuleLoadError(f"{name}: not a WebAssembly binary (it begins with {wasm[:4]!r}, not \\0asm)")
    if wasm[4:8] != _CORE_VERSION:
        raise ModuleLoadError(
            f"{name}: not a core WebAssembly module of version 1; a component must be built as a core module"
        )


def unspeakable(wasm: bytes, wanted: Collection[str]) -> list[str]:
    """Function imports, and exports of the wanted names, whose types abort the process when asked for.

    For a module that wasmtime has accepted with the GC and function references proposals off.
    """
    sections = dict(_sections(wasm))
    types = [_is_speakable(kind) for kind in _function_types(_Reader(sections.get(_TYPES, b"\0")))]
    functions: list[int] = []
    names = []
    for name, kind in _imports(_Reader(sections.get(_IMPORTS, b"\0"))):
        functions.append(kind)
        if not types[kind]:
            names.append(f"import {name}")
    reader = _Reader(sections.get(_FUNCTIONS, b"\0"))
    functions += [reader.number() for _ in range(reader.number())]
    reader = _Reader(sections.get(_EXPORTS, b"\0"))
    for _ in range(reader.number()):
        name, kind, index = reader.name(), reader.byte(), reader.number()
        if kind == _FUNCTION and name in wanted and not types[functions[index]]:
            names.append(f"export {name}")
    return names


def looks_up_lower_case(wasm: bytes) -> bool:
    """Whether the module's data holds well-known header names in lower case and none in canonical form.

    Such a module looks up `user-agent` and finds nothing under canonical names. AssemblyScript's strings are
    UTF-16.
    """
    data = b"\0".join(content for number, content in _sections(wasm) if number == _DATA)
    lower = canonical = False
    for encoding in ("ascii", "utf-16-le"):
        canonical = canonical or any(name.encode(encoding) in data for name in _HEADER_NAMES)
        lower = lower or any(name.lower().encode(encoding) in data for name in _HEADER_NAMES)
    return lower and not canonical


class _Reader:
    """Reads a section's content from its front."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        """An unsigned LEB128 number."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    def take(self, length: int) -> bytes:
        self.at += length
        return self.data[self.at - length : self.at]

    def name(self) -> str:
        return self.take(self.number()).decode()


def _sections(wasm: bytes) -> Iterator[tuple[int, bytes]]:
    """(section number, content) of a module that wasmtime has accepted."""
    reader = _Reader(wasm, len(_MAGIC) + len(_CORE_VERSION))
    while reader.at < len(wasm):
        yield reader.byte(), reader.take(reader.number())


def _function_types(reader: _Reader) -> Iterator[bytes]:
    """Each function type's parameters and results, a byte each."""
    for _ in range(reader.number()):
        reader.byte()
        params = bytes(_value_type(reader) for _ in range(reader.number()))
        yield params + bytes(_value_type(reader) for _ in range(reader.number()))


def _value_type(reader: _Reader) -> int:
    """A value type's byte; a nullable reference in its long form is that of its short one."""
    kind = reader.byte()
    if kind not in (_NULLABLE, _NOT_NULLABLE):
        return kind
    heap = reader.number()
    return heap if kind == _NULLABLE and heap < 0x80 else _NOT_NULLABLE


def _is_speakable(kinds: bytes) -> bool:
    return _SPEAKABLE.issuperset(kinds)


def _imports(reader: _Reader) -> Iterator[tuple[str, int]]:
    """(module.name, type index) of each imported function."""
    for _ in range(reader.number()):
        name = f"{reader.name()}.{reader.name()}"
        match reader.byte():
            case 0:
                yield name, reader.number()
            case 1:  # table: element type, limits
                _value_type(reader)
                _skip_limits(reader)
            case 2:  # memory
                _skip_limits(reader)
            case 3:  # global: value type, mutability
                _value_type(reader)
                reader.byte()
            case 4:  # tag: attribute, type
                reader.byte()
                reader.number()


def _skip_limits(reader: _Reader) -> None:
    flags = reader.byte()
    for _ in range((1 + (flags & 1)) + (flags >> 3 & 1)):
        reader.number()
