"""Modules that must not start, and what the one line on stderr says of them."""

from __future__ import annotations

from ..guest import wat
from ..guest.wat import PAGE, WASI
from .case import Refused, module
from .faults import FEW, FEWEST, SPIN
from .hogs import FILL_ALL, TAKE_ALL
from .hostcalls import ABORT, EXIT, LONG_SLEEP, POLL, SLEEP_LONG

START_DEADLINE = "deadline of 10000 ms exceeded"

# Exports

_FITTING = {
    "memory": '(memory (export "memory") 1)',
    "alloc": f'(func (export "alloc") (param i32) (result i32) (i32.const {wat.INPUT}))',
    "dealloc": '(func (export "dealloc") (param i32 i32))',
    "on_request_headers": wat.hook("(i64.const 0)"),
}


def _with(export: str, declaration: str) -> str:
    """A module that fits but for one export."""
    return f"(module {' '.join({**_FITTING, export: declaration}.values())})"


def _function(export: str, signature: str) -> str:
    return f'(func (export "{export}") {signature} unreachable)'


def _wrong(what: str, export: str, declaration: str, found: str) -> Refused:
    return Refused(
        f"{export} is {what}", _with(export, declaration), rf"\bexport {export} is {found}, expected "
    )


_EXPORTS = [
    *(
        Refused(f"no {export}", _with(export, ""), rf"\bexport {export} is missing")
        for export in ("memory", "alloc", "dealloc")
    ),
    Refused("no hook", _with("on_request_headers", ""), "none of the hooks is exported, expected at least"),
    Refused(
        "no hook but on_configure",
        _with("on_request_headers", wat.hook("(i64.const 0)", "on_configure")),
        "none of the hooks is exported, expected at least",
    ),
    Refused(
        "nothing at all",
        "(module)",
        r"memory is missing; .*alloc is missing.*; .*dealloc is missing.*; none of the hooks",
    ),
    _wrong("a function", "memory", '(func (export "memory"))', r"a function \(\) → \(\)"),
    _wrong("a table", "memory", '(table (export "memory") 1 funcref)', "a table"),
    _wrong("a global", "memory", '(global (export "memory") i32 (i32.const 0))', "a global"),
    _wrong("a 64-bit memory", "memory", '(memory (export "memory") i64 1)', "a 64-bit memory"),
    Refused(
        "memory is shared",
        _with("memory", '(memory (export "memory") 1 2 shared)'),
        "not a valid WebAssembly module: .*(shared|threads)",
    ),
    Refused(
        "memory has pages of one byte",
        _with("memory", '(memory (export "memory") 1000 (pagesize 1))'),
        "not a valid WebAssembly module: .*page size",
    ),
    _wrong("of i64", "alloc", _function("alloc", "(param i64) (result i32)"), r"a function \(i64\) → i32"),
    _wrong("without result", "alloc", _function("alloc", "(param i32)"), r"a function \(i32\) → \(\)"),
    _wrong("a table", "alloc", '(table (export "alloc") 1 funcref)', "a table"),
    _wrong("of one", "dealloc", _function("dealloc", "(param i32)"), r"a function \(i32\) → \(\)"),
    _wrong(
        "with result",
        "dealloc",
        _function("dealloc", "(param i32 i32) (result i32)"),
        r"a function \(i32, i32\) → i32",
    ),
    _wrong("a memory", "dealloc", '(memory (export "dealloc") 1)', "a memory"),
    *(
        _wrong(
            "for i32", hook, _function(hook, "(param i32 i32) (result i32)"), r"a function \(i32, i32\) → i32"
        )
        for hook in ("on_request_headers", "on_response_body", "on_configure")
    ),
    _wrong(
        "of three",
        "on_request_headers",
        _function("on_request_headers", "(param i32 i32 i32) (result i64)"),
        r"a function \(i32, i32, i32\) → i64",
    ),
    _wrong(
        "for two",
        "on_request_headers",
        _function("on_request_headers", "(param i32 i32) (result i64 i64)"),
        r"a function \(i32, i32\) → i64, i64",
    ),
    _wrong("a table", "on_request_headers", '(table (export "on_request_headers") 1 funcref)', "a table"),
    _wrong("of i32", "_initialize", _function("_initialize", "(param i32)"), r"a function \(i32\) → \(\)"),
    _wrong("a global", "_initialize", '(global (export "_initialize") i32 (i32.const 0))', "a global"),
    Refused(
        "alloc is of a vector",
        _with("alloc", _function("alloc", "(param v128) (result i32)")),
        "neither numbers nor plain references in export alloc",
    ),
    Refused(
        "a hook of references",
        _with(
            "on_request_headers", _function("on_request_headers", "(param externref externref) (result i64)")
        ),
        r"export on_request_headers is a function \(\w+ref, \w+ref\) → i64, expected",
    ),
    Refused("a component", "(component)", "not a core WebAssembly module"),
]

# Imports


def _imports(name: str, declaration: str, says: str) -> Refused:
    return Refused(f"imports {name}", module(imports=declaration), says)


_IMPORTS = [
    _imports("an unknown function", '(import "env" "exec" (func))', r"imports env\.exec, which"),
    _imports("another WASI", f'(import "{WASI[:-1]}2" "fd_write" (func))', "imports wasi_snapshot_preview2"),
    _imports("a socket", f'(import "{WASI}" "sock_open" (func (param i32)))', r"preview1\.sock_open, which"),
    _imports("a thread", '(import "wasi" "thread-spawn" (func (param i32)))', r"imports wasi\.thread-spawn"),
    _imports("its memory", '(import "env" "other" (table 1 funcref))', r"imports env\.other, which"),
    _imports("a tag", '(import "env" "tag" (tag))', r"imports env\.tag, which"),
    _imports("what has no name", '(import "" "" (func))', r"imports \., which"),
    _imports("a name of many lines", r'(import "a\0ab\0d\u{2028}c" "d" (func))', r"imports a b c\.d, which"),
    _imports("a global as function", '(import "sentinel" "log" (global i32))', "sentinel.log as a global"),
    _imports(
        "a function of another type",
        f'(import "{WASI}" "proc_exit" (func (param i64)))',
        r"proc_exit as a function \(i64\) → \(\), expected a function \(i32\)",
    ),
    _imports(
        "two that are wrong",
        '(import "a" "b" (func)) (import "env" "abort" (func))',
        r"imports a\.b, which .*; imports env\.abort as a function",
    ),
    Refused(
        "its memory from outside",
        _with("memory", '(import "env" "memory" (memory 1)) (export "memory" (memory 0))'),
        r"imports env\.memory, which",
    ),
]

# Limits

_LIMITS = [
    Refused(
        "a memory over the limit",
        module(pages=1025),
        "memory begins with 67174400 bytes, more than --memory-limit allows .64 MiB",
    ),
    Refused("a memory of 4 GiB", module(pages=65536), "4294967296 bytes, more than --memory-limit"),
    Refused(
        "a memory over --memory-limit",
        module(pages=17),
        "1114112 bytes, more than --memory-limit allows .1 MiB",
        options=("--memory-limit", "1"),
    ),
    Refused(
        "a file over --max-module-size",
        module(wat.data(40000, b"a" * 1_100_000), pages=32),
        "more than --max-module-size allows",
        options=("--max-module-size", "1"),
    ),
    Refused(
        "a table over the limit",
        module("(table 2000000 funcref)"),
        "2000000 which exceeds the limit of",
    ),
    Refused("two memories", module("(memory 1)"), "memory count too high"),
    Refused("data outside the memory", module(wat.data(PAGE - 3, b"four")), "out of bounds"),
    Refused("elements outside the table", module("(elem (i32.const 9) func $typed)"), "out of bounds"),
]

# What runs at start


def _start(fault: str, *fields: str, imports: str = "") -> str:
    return module(*fields, f"(func $begin {fault}) (start $begin)", imports=imports)


def _initialize(fault: str, *fields: str, imports: str = "") -> str:
    return module(*fields, f'(func (export "_initialize") {fault})', imports=imports)


def _configure(fault: str, *fields: str, imports: str = "") -> str:
    return module(*fields, wat.hook(f"{fault} (i64.const 0)", "on_configure"), imports=imports)


def _configures(result: str) -> str:
    return module(wat.says(result, "on_configure", at=40000))


def _alloc(body: str) -> str:
    """Its alloc fails at start: for the empty configuration."""
    return wat.module(
        wat.hook("(i64.const 0)"), wat.hook("(i64.const 0)", "on_configure"), alloc=f"{body} (i32.const 8)"
    )


_PLACES = {"the start function": _start, "_initialize": _initialize, "on_configure": _configure}

_STARTING = [
    *(
        Refused(f"{name} in {place}", build(code), f"cannot be started: {reason} in {place}")
        for place, build in _PLACES.items()
        for name, (code, reason) in (FEW if place == "the start function" else FEWEST).items()
    ),
    *(
        Refused(
            f"exit in {place}",
            build("(call $proc_exit (i32.const 0))", imports=EXIT),
            rf"cannot be started: the module called proc_exit\(0\) in {place}",
        )
        for place, build in _PLACES.items()
    ),
    Refused(
        "abort in the start function",
        _start("(call $abort (i32.const -1) (i32.const -1) (i32.const 1) (i32.const 2))", imports=ABORT),
        r"cannot be started: abort: no message \(\?:1:2\) in the start function",
    ),
    Refused(
        "takes all memory in the start function, and fails",
        _start(f"{TAKE_ALL} {FILL_ALL} unreachable"),
        "unreachable in the start function",
    ),
    Refused("unreachable in alloc at start", _alloc("unreachable"), "unreachable in alloc for on_configure"),
    Refused("no memory at start", _alloc("(return (i32.const 0))"), "alloc returned 0 for on_configure"),
    Refused("alloc returns -1 at start", _alloc("(return (i32.const -1))"), "outside the memory"),
    Refused(
        "on_configure refuses",
        _configures(r'{"error": "no \n rules\u0000 given"}'),
        r"cannot be started: no rules\\x00 given$",
    ),
    Refused("on_configure says no JSON", _configures("no"), "result of on_configure is not JSON"),
    Refused("on_configure says a list", _configures("[]"), "result of on_configure is an array"),
    Refused("on_configure says an odd error", _configures('{"error": 1}'), "error is an integer"),
    Refused(
        "on_configure answers outside",
        module(wat.hook(wat.returns(PAGE, 4), "on_configure")),
        "the result of on_configure lies outside the memory",
    ),
    Refused(
        "on_configure answers 2 GiB",
        module(wat.hook(wat.returns(8, 0x80000000), "on_configure")),
        "the result of on_configure is longer than",
    ),
]

REFUSED = [*_EXPORTS, *_IMPORTS, *_LIMITS, *_STARTING]

# These take the whole time that a start may take.
ENDLESS = [
    *(
        Refused(f"loop in {place}", build(SPIN), f"{START_DEADLINE} in {place}")
        for place, build in _PLACES.items()
    ),
    Refused("loop in alloc at start", _alloc(SPIN), f"{START_DEADLINE} in alloc for on_configure"),
    *(
        Refused(
            f"sleep in {place}",
            build(SLEEP_LONG, LONG_SLEEP, imports=POLL),
            f"{START_DEADLINE} in {place}",
        )
        for place, build in _PLACES.items()
    ),
]
