"""Compiled modules, kept in a private directory from one start to the next.

A file's name is the digest of all that decides what is in it: the module, wasmtime's version, the engine's
settings, the processor. To load compiled code is to run it, so files and directory must be our user's alone;
the digest that a file begins with tells of damage. Where anything is wrong, the module is compiled.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Protocol

import structlog
import wasmtime
from wasmtime import WasmtimeError

from sentinel_wasm._instances import cause
from sentinel_wasm.guest.engine import Engine
from sentinel_wasm.installed import wasmtime_version

KEPT = 16
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_NAME = re.compile(r"[0-9a-f]{64}(\.[0-9a-f]{16})?")  # a file, or one that is being written
_DIGEST_BYTES = hashlib.sha256().digest_size
_EMPTY_MODULE = b"\0asm\1\0\0\0"

_log = structlog.stdlib.get_logger("cache")


class Compiler(Protocol):
    """Makes machine code of a module."""

    def module(self, engine: Engine, wasm: bytes) -> tuple[wasmtime.Module, bool]:
        """The compiled module, and whether it was kept. Raises WasmtimeError where it cannot be compiled."""


class Cache:
    """Gives compiled modules, and keeps the last `KEPT` that were used."""

    def __init__(self, directory: Path | None = None) -> None:
        """`directory` is made where there is none. None means the service's or the user's own, /dev/null
        that nothing is kept.
        """
        self._directory = directory

    def module(self, engine: Engine, wasm: bytes) -> tuple[wasmtime.Module, bool]:
        """The compiled module, and whether it was kept. Raises WasmtimeError where it cannot be compiled."""
        if self._directory == Path(os.devnull):
            return wasmtime.Module(engine, wasm), False
        try:
            folder = _open_directory(self._directory or default_directory())
        except OSError as error:
            _log.warning(
                "compiled modules are not kept: every start compiles",
                directory=str(error.filename or ""),
                reason=error.strerror,
                hint="--cache-dir chooses another directory, or none: /dev/null",
            )
            return wasmtime.Module(engine, wasm), False
        try:
            name = _name(engine, wasm)
            kept = _load(folder, name, engine)
            if kept is not None:
                return kept, True
            compiled = wasmtime.Module(engine, wasm)
            _keep(folder, name, compiled)
            return compiled, False
        finally:
            os.close(folder)


NO_CACHE = Cache(Path(os.devnull))


def default_directory() -> Path:
    """systemd's for the service (systemd.exec(5), CacheDirectory=), else the user's (XDG Base Directory
    Specification). Raises OSError where the user has none.
    """
    if given := os.environ.get("CACHE_DIRECTORY"):
        return Path(given.partition(":")[0])
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "sentinel-wasm"
    except RuntimeError:
        raise OSError(errno.ENOENT, "the user has no home directory") from None


def _open_directory(directory: Path) -> int:
    """A descriptor of it; it is made if need be. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700, parents=True)
    return _open_ours(str(directory), os.O_RDONLY | os.O_DIRECTORY)


def _open_ours(path: str, flags: int, folder: int | None = None) -> int:
    """Raises OSError, also where another user could have written it."""
    file = os.open(path, flags, dir_fd=folder)
    status = os.fstat(file)
    if status.st_uid != os.geteuid():
        reason = f"it belongs to user {status.st_uid}, but the agent runs as {os.geteuid()}"
    elif status.st_mode & _OTHERS_WRITE:
        reason = f"its mode {stat.S_IMODE(status.st_mode):04o} lets others write; chmod go-w mends it"
    else:
        return file
    os.close(file)
    raise PermissionError(errno.EPERM, reason, path)


def _name(engine: Engine, wasm: bytes) -> str:
    # wasmtime compares major versions only, but a fix in its compiler must reach what was compiled before.
    # What else it compares (settings, processor, target) is in an empty module too.
    empty = wasmtime.Module(engine, _EMPTY_MODULE).serialize()
    parts = (wasmtime_version().encode(), empty, str(engine.memory_bytes).encode(), wasm)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _digest(name: str, artefact: bytes | bytearray) -> bytes:
    digest = hashlib.sha256(name.encode())
    digest.update(artefact)
    return digest.digest()


def _load(folder: int, name: str, engine: Engine) -> wasmtime.Module | None:
    """What was kept under this name; None where there is nothing that can be used."""

    def opener(path: str, flags: int) -> int:
        # A FIFO must not hold up the start.
        return _open_ours(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, folder)

    try:
        # Read once, checked, then used: not mapped, so that it cannot change or shrink afterwards.
        with open(name, "rb", opener=opener) as file:
            digest, artefact = file.read(_DIGEST_BYTES), file.read()
            if digest != _digest(name, artefact):
                raise OSError(errno.EIO, "it is damaged")
            kept = wasmtime.Module.deserialize(engine, artefact)
            with contextlib.suppress(OSError):
                os.utime(file.fileno())
            return kept
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = str(error.strerror)
    except WasmtimeError as error:
        reason = cause(None, str(error))
    _log.warning("a compiled module that was kept cannot be used, and is made anew", file=name, reason=reason)
    return None


def _keep(folder: int, name: str, compiled: wasmtime.Module) -> None:
    """Write a module's file, whole or not at all."""
    artefact = compiled.serialize()
    unfinished = f"{name}.{os.urandom(8).hex()}"
    try:
        with open(
            unfinished, "xb", opener=lambda path, flags: os.open(path, flags, 0o600, dir_fd=folder)
        ) as file:
            try:
                file.write(_digest(name, artefact) + artefact)
                file.flush()
                os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                os.unlink(unfinished, dir_fd=folder)
                raise
        _prune(folder)
    except OSError as error:
        _log.warning("the compiled module is not kept", file=name, reason=error.strerror)


def _prune(folder: int) -> None:
    """Remove what was not used for longest, and what an agent that ended was writing."""
    with os.scandir(folder) as entries:
        files = [entry for entry in entries if _NAME.fullmatch(entry.name)]
    # Another agent may be at it.
    with contextlib.suppress(FileNotFoundError):
        files.sort(key=lambda entry: entry.stat(follow_symlinks=False).st_mtime_ns)
        for entry in files[:-KEPT]:
            os.unlink(entry.name, dir_fd=folder)
