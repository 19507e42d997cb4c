"""The fixed work: events of named sizes and the smallest modules that answer."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pybase64
import wasmtime

from sentinel_wasm import base64
from sentinel_wasm.agent import Agent
from sentinel_wasm.bench.reference import RESULT, TRIVIAL, literal
from sentinel_wasm.guest import abi, inputs
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.instance import Instance
from sentinel_wasm.guest.limits import MIB, Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.output import GuestOutput
from sentinel_wasm.settings import Isolation, Settings

UNDER_WAY = 8  # requests at once
EXAMPLES = Path(__file__).parent.parent / "examples"

SIZES = (4, 12, 40)
CORRELATION_ID = "iuKtfzn2R7A"  # a real proxy's
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

# Its result carries the correlation id as a tag, so that no two results are the same.
_DISTINCT_START = RESULT[: RESULT.index(b"processed")]
_DISTINCT_END = b'"]}'
_ID_KEY = b'"correlation_id":"'
DISTINCT = f"""
(module
  (memory (export "memory") 2)
  (data (i32.const 64) "{literal(_DISTINCT_START)}")
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "dealloc") (param i32 i32))
  (func (export "on_request_headers") (param $in i32) (param $len i32) (result i64)
    (local $end i32) (local $out i32) (local $byte i32)
    (local.set $end (i32.add (local.get $in) (local.get $len)))
    (local.set $out (i32.const {64 + len(_DISTINCT_START)}))
    (loop $search
      (if (i32.ge_u (local.get $in) (local.get $end)) (then (unreachable)))
      (if (i64.ne (i64.load (local.get $in)) (i64.const {int.from_bytes(_ID_KEY[:8], "little")}))
        (then
          (local.set $in (i32.add (local.get $in) (i32.const 1)))
          (br $search))))
    (local.set $in (i32.add (local.get $in) (i32.const {len(_ID_KEY)})))
    (loop $copy
      (local.set $byte (i32.load8_u (local.get $in)))
      (if (i32.ne (local.get $byte) (i32.const {_ID_KEY[-1]}))
        (then
          (i32.store8 (local.get $out) (local.get $byte))
          (local.set $in (i32.add (local.get $in) (i32.const 1)))
          (local.set $out (i32.add (local.get $out) (i32.const 1)))
          (br $copy))))
    (i32.store (local.get $out) (i32.const {int.from_bytes(_DISTINCT_END, "little")}))
    (i64.or
      (i64.const {64 << 32})
      (i64.extend_i32_u (i32.sub (local.get $out) (i32.const {64 - len(_DISTINCT_END)}))))))
"""


def headers(count: int) -> dict[str, list[str]]:
    return {
        f"{name}{f'-{n}' if n else ''}": [value]
        for n in range(4)
        for name, value in _HEADERS[: max(count - 10 * n, 0)]
    }


def payload(count: int) -> dict[str, Any]:
    """A request_headers payload with so many headers, as today's proxy writes it."""
    metadata = {
        "client_ip": "192.168.1.100:51234",
        "client_port": 0,
        "correlation_id": CORRELATION_ID,
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
        "correlation_id": CORRELATION_ID,
        "headers": headers(count),
        "metadata": metadata,
        "method": "GET",
        "uri": "/api/users?page=1",
    }


def frame_v2(count: int) -> bytes:
    return orjson.dumps(payload(count))


def frame_v1(count: int) -> bytes:
    return orjson.dumps({"version": 1, "event_type": "request_headers", "payload": payload(count)})


def chunk_v2(length: int) -> bytes:
    """All of a response's body, of so many bytes."""
    data = base64.encode((b'{"name":"a value"},\n' * length)[:length])
    fields = {"bytes_sent": length, "chunk_index": 0, "is_last": True, "total_size": length}
    return orjson.dumps({"correlation_id": CORRELATION_ID, "data": data, **fields})


def trivial_module(hook: str = "on_request_headers") -> Module:
    text = TRIVIAL.replace("on_request_headers", hook)
    return Module(make_engine(), bytes(wasmtime.wat2wasm(text)), "trivial")


def trivial_instance() -> Instance:
    instance = Instance(trivial_module(), Limits(), GuestOutput())
    instance.start_within(None, 1000)
    return instance


def whole_request(language: str, isolation: Isolation, *, quickly: bool = True) -> Callable[[], None]:
    """One request begins and another ends, as often as it is called: request and response headers, body.

    They are answered the quick way, or in Python.
    """
    path = EXAMPLES / language / "security.wasm"
    module = Module.load(make_engine(instances=300), path)
    agent = Agent(Settings(module=path, isolation=isolation, timeout_ms=10_000), module)
    names = [b"%011d" % number for number in range(1000)]
    opening = [frame_v2(12).replace(b"iuKtfzn2R7A", name) for name in names]
    response = {"correlation_id": "iuKtfzn2R7A", "headers": headers(4), "status": 200}
    middle = [orjson.dumps(response).replace(b"iuKtfzn2R7A", name) for name in names]
    body = {"correlation_id": "iuKtfzn2R7A", "data": "e30=", "is_last": True, "chunk_index": 0}
    closing = [orjson.dumps(body).replace(b"iuKtfzn2R7A", name) for name in names]
    numbers = itertools.cycle(range(len(names)))

    def answer(frame_type: int, frame: bytes) -> bytes | None:
        if quickly:
            return agent.quick.answer_frame(frame_type, frame, time.monotonic_ns())
        return agent.answer_v2(frame_type, frame, time.monotonic_ns(), no_reply)

    def request() -> None:
        number = next(numbers)
        before = number - UNDER_WAY
        for frame_type, frame in ((0x10, opening[number]), (0x12, middle[before]), (0x13, closing[before])):
            assert answer(frame_type, frame) is not None

    return request


def large_chunk(kind: str) -> bytes:
    return (
        os.urandom(MIB) if kind == "binary" else (b'{"name":"a value","text":"caf\xc3\xa9"},\n' * MIB)[:MIB]
    )


def large_body_in_libraries() -> Callable[[], None]:
    """1 MiB of text out of JSON and base64 and into JSON, as libraries do it."""
    frame = orjson.dumps({"correlation_id": "large", "data": base64.encode(large_chunk("text"))})

    def read_and_write() -> None:
        orjson.dumps(pybase64.b64decode(orjson.loads(frame)["data"], validate=True).decode())

    return read_and_write


def large_body(kind: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """The whole event of a body chunk of 1 MiB, and the guest's call in it."""
    text = TRIVIAL.replace('"memory") 2', '"memory") 64').replace("on_request_headers", "on_request_body")
    module = Module(make_engine(), bytes(wasmtime.wat2wasm(text)), "large")
    agent = Agent(Settings(module=Path("large.wasm"), dispatch="inline", timeout_ms=10_000), module)
    raw = large_chunk(kind)
    payload = {"correlation_id": "large", "data": base64.encode(raw), "is_last": True, "total_size": MIB}
    frame = orjson.dumps(payload)
    chunk = (raw, base64.encode(raw))
    data = inputs.body_chunk("large", *chunk, is_last=True, total_size=MIB, chunk_index=0, bytes_seen=MIB)
    instance = Instance(module, Limits(), GuestOutput())
    instance.start_within(None, 1000)

    def whole() -> None:
        agent.answer_v2(0x11, frame, time.monotonic_ns(), no_reply)

    def guest() -> None:
        instance.guest.call(abi.ON_REQUEST_BODY, data, FAR_NS, FAR_NS)

    return whole, guest


def no_reply(*_: object) -> None:
    raise AssertionError("a quick module's events are answered at once")


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
