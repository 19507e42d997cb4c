"""What makes a module fit, and what is said of one that does not (guest-abi.md, "Exports", "Imports")."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from sentinel_wasm.errors import GuestFault, ModuleLoadError
from sentinel_wasm.guest.abi import HOOKS, ON_REQUEST_HEADERS
from sentinel_wasm.guest.engine import Engine
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.pool import Pool

from . import wat
from .apart import run_python
from .conftest import Load, Start

pytestmark = pytest.mark.parallel

DECIDING = HOOKS[:4]
MEMORY = '(memory (export "memory") 1)'
ALLOC = '(func (export "alloc") (param i32) (result i32) (i32.const 1024))'
DEALLOC = '(func (export "dealloc") (param i32 i32))'
HOOK = '(func (export "on_request_headers") (param i32 i32) (result i64) (i64.const 0))'


def fitting(**instead: str) -> str:
    """The smallest module that fits, with something instead of some of its exports."""
    fields = {"memory": MEMORY, "alloc": ALLOC, "dealloc": DEALLOC, "hook": HOOK, **instead}
    return f"(module {' '.join(fields.values())})"


def refused(load: Load, module: str | bytes) -> str:
    with pytest.raises(ModuleLoadError) as caught:
        load(module)
    return str(caught.value)


def start_refused(load: Load, text: str) -> str:
    """The error of a module that loads but cannot be started."""
    module = load(text)
    with pytest.raises(ModuleLoadError) as caught:
        Pool(module, 1, Limits())
    return str(caught.value)


# Exports


@pytest.mark.parametrize("name", DECIDING)
def test_module_with_one_hook_fits(load: Load, name: str) -> None:
    module = load(fitting(hook=HOOK.replace("on_request_headers", name)))
    assert [hook for hook, there in zip(HOOKS, module.hooks, strict=True) if there] == [name]


def test_other_exports_do_not_matter(load: Load) -> None:
    text = fitting(more='(func (export "malloc") (param f64)) (memory (export "memory2") 1)')
    assert load(text).hooks[ON_REQUEST_HEADERS]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("memory", ["memory", "missing"]),
        ("alloc", ["alloc", "missing", "(i32) → i32"]),
        ("dealloc", ["dealloc", "missing", "(i32, i32) → ()"]),
    ],
)
def test_missing_export_is_named_with_the_type_wanted(load: Load, field: str, words: list[str]) -> None:
    message = refused(load, fitting(**{field: ""}))
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "optional", ["", '(func (export "on_configure") (param i32 i32) (result i64) (i64.const 0))']
)
def test_module_without_any_deciding_hook_is_refused(load: Load, optional: str) -> None:
    message = refused(load, fitting(hook=optional))
    assert all(hook in message for hook in DECIDING), message


def function(name: str, signature: str) -> str:
    return f'(func (export "{name}") {signature} unreachable)'


WRONG_EXPORTS = [
    ("memory", '(func (export "memory"))', "function", "memory"),
    ("memory", '(global (export "memory") i32 (i32.const 0))', "global", "memory"),
    ("memory", '(table (export "memory") 1 funcref)', "table", "memory"),
    *(
        (name, declaration, found, wanted)
        for name, wanted in [
            ("alloc", "(i32) → i32"),
            ("dealloc", "(i32, i32) → ()"),
            ("_initialize", "() → ()"),
            *((hook, "(i32, i32) → i64") for hook in HOOKS),
        ]
        for declaration, found in [
            (f'(global (export "{name}") i32 (i32.const 0))', "global"),
            (f'(table (export "{name}") 1 funcref)', "table"),
            (f'(memory (export "{name}") 1)', "memory"),
            (function(name, "(param i64) (result i64)"), "(i64) → i64"),
            (function(name, "(param i32 i32) (result i32)"), "(i32, i32) → i32"),
            (function(name, "(param f32)"), "(f32) → ()"),
            (function(name, "(param i32 i32) (result i32 i32)"), "(i32, i32) → i32, i32"),
            (function(name, "(result i64)"), "() → i64"),
        ]
    ),
]


@pytest.mark.parametrize(
    ("name", "declaration", "found", "wanted"),
    WRONG_EXPORTS,
    ids=[f"{name}: {found}" for name, _, found, _ in WRONG_EXPORTS],
)
def test_wrongly_typed_export_is_named_with_both_types(
    load: Load, name: str, declaration: str, found: str, wanted: str
) -> None:
    rest = {"memory": MEMORY, "alloc": ALLOC, "dealloc": DEALLOC, "on_request_headers": HOOK}
    message = refused(load, f"(module {' '.join({**rest, name: declaration}.values())})")
    assert re.search(rf"export {name} is .*{re.escape(found)}.* expected .*{re.escape(wanted)}", message), (
        message
    )
    assert message.count("export ") == 1, message


def test_all_that_is_wrong_is_said_at_once(load: Load) -> None:
    message = refused(
        load,
        """(module
        (import "env" "unknown_import" (func))
        (import "wasi_snapshot_preview1" "no_such_call" (func))
        (func (export "alloc") (param i64) (result i32) unreachable)
        (func (export "on_request_body") (param i32 i32) (result i32) unreachable)
        (global (export "on_configure") i32 (i32.const 0))
        (func (export "_initialize") (param i32)))""",
    )
    names = ["memory", "alloc", "dealloc", "on_request_body", "on_configure", "_initialize"]
    assert [name for name in names if f"export {name} " not in message] == []
    assert "env.unknown_import" in message
    assert "wasi_snapshot_preview1.no_such_call" in message


def test_error_names_the_file(load: Load) -> None:
    assert refused(load, fitting(alloc="")).startswith("filter.wasm: ")


# Binaries


@pytest.mark.parametrize(
    "raw",
    [b"", b"\0", b"\0as", b"hello, world", b"#!/bin/sh\n", b"\x7fELF\2\1\1\0", b"(module)", b"PK\3\4"],
)
def test_file_that_is_not_wasm_is_refused_as_such(load: Load, raw: bytes) -> None:
    assert "not a WebAssembly" in refused(load, raw)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.99])
def test_truncated_module_is_refused(load: Load, kept: float) -> None:
    raw = wat.binary(fitting())
    assert "not a valid WebAssembly module" in refused(load, raw[: int(len(raw) * kept)])


@pytest.mark.parametrize("length", range(8, 80))
def test_no_prefix_of_a_module_raises_anything_else(load: Load, length: int) -> None:
    refused(load, wat.binary(fitting())[:length])


@pytest.mark.parametrize("version", [b"", b"\1\0\0", b"\2\0\0\0", b"\0\0\0\0"])
def test_module_of_another_version_is_refused(load: Load, version: bytes) -> None:
    assert "version" in refused(load, b"\0asm" + version)


def test_component_is_refused_as_such(load: Load) -> None:
    assert "component" in refused(load, wat.binary("(component)"))


def test_module_that_does_not_validate_is_refused(load: Load) -> None:
    broken = fitting(hook='(func (export "on_request_headers") (param i32 i32) (result i64) (i32.const 0))')
    assert "not a valid WebAssembly module" in refused(load, broken)


def test_64_bit_memory_is_a_wrongly_typed_export(load: Load) -> None:
    message = refused(load, fitting(memory='(memory (export "memory") i64 1)'))
    assert re.search(r"export memory is .*64-bit.* expected .*32-bit", message), message


def test_shared_memory_is_refused(load: Load) -> None:
    assert "shared" in refused(load, fitting(memory='(memory (export "memory") 1 1 shared)'))


def test_file_that_cannot_be_read_is_named(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(ModuleLoadError, match=r"no_such\.wasm"):
        Module.load(engine, tmp_path / "no_such.wasm")


def test_file_is_loaded(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "filter.wasm"
    path.write_bytes(wat.binary(fitting()))
    assert Module.load(engine, path).name == str(path)


# Imports


@pytest.mark.parametrize(
    "declaration",
    [
        '(import "env" "print" (func))',
        '(import "env" "memory" (memory 1))',
        '(import "env" "table" (table 1 funcref))',
        '(import "env" "global" (global i32))',
        '(import "wasi_snapshot_preview1" "sock_open" (func (param i32) (result i32)))',
        '(import "wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32)))',
        '(import "wasi_snapshot_preview2" "fd_write" (func (param i32 i32 i32 i32) (result i32)))',
        '(import "wasi" "thread-spawn" (func (param i32) (result i32)))',
        '(import "sentinel" "print" (func (param i32)))',
        '(import "" "" (func))',
    ],
)
def test_unknown_import_is_named(load: Load, declaration: str) -> None:
    module, name = re.findall(r'"([^"]*)"', declaration)
    assert f"imports {module}.{name}" in refused(load, wat.module(wat.says("{}"), imports=declaration))


@pytest.mark.parametrize(
    "declaration",
    [
        '(import "sentinel" "log" (func (param i32)))',
        '(import "sentinel" "log" (func (param i32 i32 i32) (result i32)))',
        '(import "sentinel" "log" (global i32))',
        '(import "env" "abort" (func))',
        '(import "env" "seed" (func (result i64)))',
        '(import "wasi_snapshot_preview1" "fd_write" (func (param i64 i64 i64 i64) (result i32)))',
        '(import "wasi_snapshot_preview1" "clock_time_get" (func))',
    ],
)
def test_import_of_a_wrong_type_is_named(load: Load, declaration: str) -> None:
    _, name = re.findall(r'"([^"]*)"', declaration)
    assert name in refused(load, wat.module(wat.says("{}"), imports=declaration))


EVERY_IMPORT = [
    ("wasi_snapshot_preview1.args_get", "i32 i32", "i32"),
    ("wasi_snapshot_preview1.clock_res_get", "i32 i32", "i32"),
    ("wasi_snapshot_preview1.clock_time_get", "i32 i64 i32", "i32"),
    ("wasi_snapshot_preview1.environ_get", "i32 i32", "i32"),
    ("wasi_snapshot_preview1.fd_read", "i32 i32 i32 i32", "i32"),
    ("wasi_snapshot_preview1.fd_write", "i32 i32 i32 i32", "i32"),
    ("wasi_snapshot_preview1.path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32", "i32"),
    ("wasi_snapshot_preview1.poll_oneoff", "i32 i32 i32 i32", "i32"),
    ("wasi_snapshot_preview1.proc_exit", "i32", ""),
    ("wasi_snapshot_preview1.random_get", "i32 i32", "i32"),
    ("wasi_snapshot_preview1.sched_yield", "", "i32"),
    ("wasi_snapshot_preview1.sock_accept", "i32 i32 i32", "i32"),
    ("env.abort", "i32 i32 i32 i32", ""),
    ("env.seed", "", "f64"),
    ("env.trace", "i32 i32 f64 f64 f64 f64 f64", ""),
    ("sentinel.log", "i32 i32 i32", ""),
]


@pytest.mark.parametrize(("name", "parameters", "result"), EVERY_IMPORT, ids=[row[0] for row in EVERY_IMPORT])
def test_import_that_a_module_may_use_resolves(start: Start, name: str, parameters: str, result: str) -> None:
    text = wat.module(wat.says("{}"), imports=wat.imported(name, parameters, result))
    assert start(text).call(ON_REQUEST_HEADERS, b"{}", "") == b"{}"


# Types that wasmtime's C API has no word for

REFUSED = """
import sys, wasmtime
from sentinel_wasm.errors import ModuleLoadError
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.module import Module

try:
    Module(make_engine(), bytes(wasmtime.wat2wasm(sys.stdin.read())), "filter.wasm")
except ModuleLoadError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("field", "declaration", "name"),
    [
        ("alloc", '(func (export "alloc") (param v128) (result i32) unreachable)', "export alloc"),
        ("hook", '(func (export "on_request_headers") (param v128 i32) (result i64) unreachable)', "headers"),
        (
            "memory",
            '(import "env" "abort" (func (param v128))) (memory (export "memory") 1)',
            "import env.abort",
        ),
    ],
    ids=["alloc", "hook", "import"],
)
def test_vector_type_is_refused_in_words(field: str, declaration: str, name: str) -> None:
    # In a process of its own: asking for such a type has aborted it.
    said = run_python(REFUSED, fitting(**{field: declaration}))
    assert "neither numbers nor plain references" in said
    assert name in said


@pytest.mark.parametrize("kind", ["anyref", "(ref extern)", "(ref null func)", "i31ref"])
def test_reference_of_a_new_proposal_is_refused(kind: str) -> None:
    declaration = f'(func (export "alloc") (param {kind}) (result i32) unreachable)'
    assert run_python(REFUSED, fitting(alloc=declaration)).startswith("filter.wasm: ")


def test_vector_type_elsewhere_does_not_matter(start: Start) -> None:
    more = """(tag (export "tag")) (table (export "table") 1 funcref)
        (global (export "global") v128 (v128.const i32x4 0 0 0 0))
        (func (export "other") (param v128 externref) (result v128) unreachable)"""
    assert start(wat.module(wat.says("{}"), more)).call(ON_REQUEST_HEADERS, b"{}", "") == b"{}"


def test_functions_are_found_behind_imports_of_every_kind(load: Load) -> None:
    """Nothing but functions can be imported, but the reader of the binary must get past the others."""
    imports = """(import "x" "t" (table 1 2 funcref)) (import "x" "m" (memory 1 2))
        (import "x" "g" (global i32)) (import "x" "e" (tag)) (import "env" "abort" (func (param v128)))"""
    assert "import env.abort" in refused(load, wat.module(wat.says("{}"), imports=imports))


FUNCREF, LONG_FUNCREF = (
    b"\x70",
    b"\x63\x70",
)  # wasm's two ways to write one type; wat2wasm knows the short one


def with_long_form(text: str, section: int, before: bytes, after: bytes) -> bytes:
    """The binary of a text whose one FUNCREF between these bytes is written in the long form."""
    raw = wat.binary(text)
    at = 8
    while raw[at] != section:
        at += 2 + raw[at + 1]
    size = raw[at + 1]
    content = raw[at + 2 : at + 2 + size]
    assert size < 127
    assert content.count(before + FUNCREF + after) == 1
    content = content.replace(before + FUNCREF + after, before + LONG_FUNCREF + after)
    return raw[:at] + bytes([section, size + 1]) + content + raw[at + 2 + size :]


def test_long_form_of_a_type_is_read_as_one_type(load: Load) -> None:
    raw = with_long_form(fitting(memory=MEMORY + "(func (param funcref))"), 1, b"\x60\1", b"\0")
    assert load(raw).hooks[ON_REQUEST_HEADERS]


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [("(global funcref)", b"\3", b"\0"), ("(table 1 funcref)", b"\1", b"\0\1")],
    ids=["global", "table"],
)
def test_vector_is_found_behind_the_long_form_of_a_type(kind: str, before: bytes, after: bytes) -> None:
    imports = f'(import "x" "y" {kind}) (import "env" "abort" (func (param v128)))'
    raw = with_long_form(fitting(memory=imports + MEMORY), 2, before, after)
    program = REFUSED.replace("wasmtime.wat2wasm(sys.stdin.read())", "bytes.fromhex(sys.stdin.read())")
    assert "env.abort" in run_python(program, raw.hex())


def test_imported_function_that_is_exported_again_is_checked(load: Load) -> None:
    again = '(import "sentinel" "log" (func $log (param i32 i32 i32))) (export "alloc" (func $log))'
    message = refused(load, fitting(alloc="", memory=again + MEMORY))
    assert re.search(r"export alloc is .*\(i32, i32, i32\).* expected .*\(i32\) → i32", message), message


def test_types_are_found_among_very_many(load: Load) -> None:
    # Counts and indices of more than one byte: 1,024 types and functions before the ABI's own.
    kinds = ("i32", "i64", "f32", "v128")
    many = " ".join(
        f"(func (param {' '.join(kinds[number >> shift & 3] for shift in (0, 2, 4, 6, 8))}))"
        for number in range(1024)
    )
    assert load(fitting(memory=many + MEMORY)).hooks[ON_REQUEST_HEADERS]
    wrong = '(func (export "alloc") (param v128 v128) (result i32) unreachable)'
    assert "export alloc" in refused(load, fitting(memory=many + MEMORY, alloc=wrong))


# Starting

INITIALIZED = 256  # where the modules below count


def counting(address: int) -> str:
    return f"(i32.store (i32.const {address}) (i32.add (i32.load (i32.const {address})) (i32.const 1)))"


def test_initialize_is_called_once(start: Start) -> None:
    text = wat.module(
        f'(func (export "_initialize") {counting(INITIALIZED)})', wat.hook(wat.returns(INITIALIZED, 4))
    )
    instance = start(text)
    results = [instance.call(ON_REQUEST_HEADERS, b"{}", "") for _ in range(3)]
    assert results == [struct.pack("<I", 1)] * 3


def test_start_of_a_command_is_never_called(start: Start) -> None:
    assert (
        start(wat.module(wat.says("{}"), function("_start", ""))).call(ON_REQUEST_HEADERS, b"{}", "") == b"{}"
    )


def test_reactor_that_reads_clock_and_random_bytes_starts(start: Start) -> None:
    imports = wat.imported("wasi_snapshot_preview1.clock_time_get", "i32 i64 i32", "i32") + wat.imported(
        "wasi_snapshot_preview1.random_get", "i32 i32", "i32"
    )
    initialize = """(func (export "_initialize")
        (if (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 256)) (then unreachable))
        (if (call $random_get (i32.const 264) (i32.const 16)) (then unreachable)))"""
    text = wat.module(initialize, wat.hook(wat.returns(256, 24)), imports=imports)
    result = start(text).call(ON_REQUEST_HEADERS, b"{}", "")
    assert result is not None
    now, drawn = struct.unpack("<Q16s", result)
    assert now > 1_700_000_000 * 10**9
    assert drawn != bytes(16)


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("(func $s unreachable) (start $s)", r"trap: unreachable in the start function"),
        ("(func $s (drop (i32.load (i32.const -1)))) (start $s)", r"out of bounds in the start function"),
        ('(func (export "_initialize") unreachable)', r"trap: unreachable in _initialize"),
        ('(data (i32.const 65536) "x")', r"out of bounds"),
        (
            '(func (export "on_configure") (param i32 i32) (result i64) unreachable)',
            r"trap: unreachable in on_configure",
        ),
        (wat.says('{"error": "no rules given"}', "on_configure"), r"no rules given"),
        (wat.says("[]", "on_configure"), r"result of on_configure"),
        (wat.says('{"error": 1}', "on_configure"), r"error is an integer"),
        (wat.says(b"\xff", "on_configure"), r"result of on_configure is not"),
    ],
    ids=["start", "start-memory", "initialize", "data", "trap", "refused", "array", "type", "text"],
)
def test_module_that_cannot_be_started_is_a_load_error_with_the_reason(
    load: Load, field: str, reason: str
) -> None:
    message = start_refused(load, wat.module(wat.says("{}"), field))
    assert "filter.wasm" in message
    assert re.search(reason, message), message
    assert "0x" not in message


def test_module_that_exits_at_start_is_a_load_error_with_the_code(load: Load) -> None:
    imports = wat.imported("wasi_snapshot_preview1.proc_exit", "i32")
    exits = "(func $s (call $proc_exit (i32.const 3))) (start $s)"
    assert "proc_exit(3)" in start_refused(load, wat.module(wat.says("{}"), exits, imports=imports))


def test_instance_of_a_module_whose_start_traps_is_a_guest_fault(start: Start) -> None:
    with pytest.raises(GuestFault, match="trap: unreachable in the start function"):
        start(wat.module(wat.says("{}"), "(func $s unreachable) (start $s)"))


def test_output_of_the_start_function_is_logged(start: Start, log: list[dict[str, object]]) -> None:
    imports = wat.imported("sentinel.log", "i32 i32 i32")
    begins = "(func $s (call $log (i32.const 2) (i32.const 256) (i32.const 5))) (start $s)"
    start(wat.module(wat.says("{}"), wat.data(256, b"begun"), begins, imports=imports))
    assert [entry["text"] for entry in log] == ["begun"]


# Header names in lower case

UTF_16 = "utf-16-le"


def blind(load: Load, *contents: bytes) -> bool:
    """Whether the agent would warn of a module with these data segments."""
    fields = [wat.data(2048 + 512 * index, content) for index, content in enumerate(contents)]
    return load(wat.module(wat.says("{}"), *fields)).looks_up_lower_case


@pytest.mark.parametrize("encoding", ["ascii", UTF_16])
@pytest.mark.parametrize("name", ["user-agent", "authorization", "content-type", "x-forwarded-for"])
def test_lower_case_header_name_is_found(load: Load, name: str, encoding: str) -> None:
    assert blind(load, b"\1\2\3", b"rules\0" + name.encode(encoding) + b"\0x")


@pytest.mark.parametrize("encoding", ["ascii", UTF_16])
@pytest.mark.parametrize("name", ["User-Agent", "Authorization", "Content-Type", "X-Forwarded-For"])
def test_canonical_header_name_is_fine(load: Load, name: str, encoding: str) -> None:
    assert not blind(load, name.encode(encoding))


@pytest.mark.parametrize("lower", ["ascii", UTF_16])
@pytest.mark.parametrize("canonical", ["ascii", UTF_16])
def test_module_with_both_forms_is_fine(load: Load, lower: str, canonical: str) -> None:
    assert not blind(load, "user-agent".encode(lower), "Content-Type".encode(canonical))


@pytest.mark.parametrize("content", [b"", b"user agent", b"USER-AGENT", b"agent: user", b"useragent"])
def test_other_text_is_fine(load: Load, content: bytes) -> None:
    assert not blind(load, content)


def test_names_outside_the_data_segments_do_not_count(load: Load) -> None:
    exported = load(wat.module(wat.says("{}"), '(func (export "user-agent"))'))
    assert not exported.looks_up_lower_case


def test_passive_data_segments_count(load: Load) -> None:
    assert load(wat.module(wat.says("{}"), '(data "authorization")')).looks_up_lower_case


def test_name_at_the_end_of_a_large_module_is_found(load: Load) -> None:
    # A section longer than one byte's length, after others.
    assert blind(load, *[bytes(range(200)) for _ in range(20)], b"user-agent")
