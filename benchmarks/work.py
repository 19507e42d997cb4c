"""The fixed work: events of named sizes and the smallest module that answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import wasmtime

from sentinel_wasm.guest.instance import Instance
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.module import Module, make_engine
from sentinel_wasm.guest.output import GuestOutput

SIZES = (4, 12, 40)
FAR_NS = 2**61  # a deadline that no run reaches

_HEADERS = [
    ("host", "api.example.com"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br"),
    ("cookie", "session=0123456789abcdef0123456789abcdef; theme=dark; lang=en"),
    ("referer", "https://www.example.com/products/list?page=2"),
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("content-type", "application/json"),
]

RESULT = b'{"decision":"allow","add_request_headers":{"X-Wasm-Processed":"true"},"tags":["processed"]}'

# The smallest module that keeps the ABI: a constant result, one buffer at a fixed place.
_ESCAPED = "".join(f"\\{byte:02x}" for byte in RESULT)
TRIVIAL = f"""
(module
  (memory (export "memory") 2)
  (data (i32.const 64) "{_ESCAPED}")
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "dealloc") (param i32 i32))
  (func (export "on_request_headers") (param i32 i32) (result i64)
    (i64.const {64 << 32 | len(RESULT)})))
"""


def headers(count: int) -> dict[str, list[str]]:
    return {
        f"{name}{f'-{n}' if n else ''}": [value]
        for n in range(4)
        for name, value in _HEADERS[: count - 10 * n]
    }


def payload(count: int) -> dict[str, Any]:
    """A request_headers payload with so many headers, as today's proxy writes it."""
    metadata = {
        "client_ip": "192.168.1.100:51234",
        "client_port": 0,
        "correlation_id": "iuKtfzn2R7A",
        "protocol": "HTTP/1.1",
        "request_id": "47e78138-f72f-493f-92d1-b294cd1d0e73",
        "route_id": "default",
        "server_name": None,
        "timestamp": "2026-11-22T16:54:30.633894926+00:00",
        "tls_cipher": None,
        "tls_version": None,
        "upstream_id": None,
    }
    return {
        "correlation_id": "iuKtfzn2R7A",
        "headers": headers(count),
        "metadata": metadata,
        "method": "GET",
        "uri": "/api/users?page=1",
    }


def frame_v2(count: int) -> bytes:
    return orjson.dumps(payload(count))


def frame_v1(count: int) -> bytes:
    return orjson.dumps({"version": 1, "event_type": "request_headers", "payload": payload(count)})


def trivial_module() -> Module:
    return Module(make_engine(), bytes(wasmtime.wat2wasm(TRIVIAL)), "trivial")


def trivial_instance() -> Instance:
    return Instance(trivial_module(), Limits(), 1000, GuestOutput())


def wasmtime_py_call(data: bytes) -> Callable[[], bytes]:
    """One call of the trivial module as guest-abi.md has it, by wasmtime-py's own means."""
    store = wasmtime.Store()
    module = wasmtime.Module(store.engine, TRIVIAL)
    exports = wasmtime.Instance(store, module, []).exports(store)
    alloc, dealloc, hook = (exports[name] for name in ("alloc", "dealloc", "on_request_headers"))
    memory = exports["memory"]
    assert isinstance(alloc, wasmtime.Func)
    assert isinstance(dealloc, wasmtime.Func)
    assert isinstance(hook, wasmtime.Func)
    assert isinstance(memory, wasmtime.Memory)

    def call() -> bytes:
        pointer = alloc(store, len(data))
        memory.write(store, data, pointer)
        packed = hook(store, pointer, len(data)) & 0xFFFFFFFFFFFFFFFF
        start, length = packed >> 32, packed & 0xFFFFFFFF
        result = bytes(memory.read(store, start, start + length))
        dealloc(store, pointer, len(data))
        dealloc(store, start, length)
        return result

    return call
