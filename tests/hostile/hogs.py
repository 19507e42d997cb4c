"""Modules that take all the memory, all the table or all the stack that they get."""

from __future__ import annotations

from ..guest import wat
from .agents import DEADLINE
from .case import GOOD, GOOD_AT, Runs, module
from .faults import SPIN

MOST_PAGES = 1024  # of the default limit, 64 MiB
MOST_BYTES = 60 * 1024 * 1024
LATE = f"^{DEADLINE} in on_request_headers$"

GROW_TO_THE_LIMIT = "(loop $grow (br_if $grow (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))"
# As much as the first growth gets, in one step: a loop of small ones is slower.
TAKE_ALL = f"(drop (memory.grow (i32.const {MOST_PAGES - 1})))"
FILL_ALL = f"(memory.fill (i32.const 32768) (i32.const 255) (i32.const {MOST_BYTES}))"

# Behind the good answer and the template's own numbers.
OTHER_THAN_GOOD = GOOD_AT + len(GOOD)

_MEMORY = [
    Runs(
        "grows to the limit, then traps",
        module(fault=f"{GROW_TO_THE_LIMIT} unreachable"),
        "^trap: unreachable in on_request_headers$",
        v1=True,
    ),
    Runs(
        "grows to the limit, and writes past it",
        module(
            fault=f"""{GROW_TO_THE_LIMIT}
                (i32.store (i32.mul (memory.size) (i32.const {wat.PAGE})) (i32.const 1))"""
        ),
        "^trap: memory out of bounds in on_request_headers$",
    ),
    Runs("grows to the limit and goes on", module(fault=GROW_TO_THE_LIMIT), None, survives=True),
    Runs(
        "takes growth past the limit for granted",
        module(
            fault=f"(drop (memory.grow (i32.const 2000))) (i32.store (i32.const {MOST_BYTES}) (i32.const 1))"
        ),
        "^trap: memory out of bounds in on_request_headers$",
    ),
    Runs(
        "grows for ever",
        module(fault="(loop $grow (drop (memory.grow (i32.const 1))) (br $grow))"),
        LATE,
        times_out=True,
    ),
    Runs(
        "fills all it can get once",
        module(fault=f"{TAKE_ALL} {FILL_ALL}"),
        None,
        survives=True,
        options=("--timeout-ms", "2000"),
    ),
    Runs(
        "fills all it can get for ever",
        module(fault=f"{TAKE_ALL} (loop $fill {FILL_ALL} (br $fill))"),
        LATE,
        times_out=True,
        v1=True,
    ),
    Runs(
        # No loop and no call: wasmtime must look at the clock between two of them.
        "fills all it can get, 2000 times in a row",
        module(fault=TAKE_ALL + FILL_ALL * 2000),
        LATE,
        times_out=True,
    ),
    Runs(
        "copies all it can get, 2000 times in a row",
        module(
            fault=TAKE_ALL
            + f"(memory.copy (i32.const 32768) (i32.const 32776) (i32.const {MOST_BYTES}))" * 2000
        ),
        LATE,
        times_out=True,
    ),
    Runs(
        "alloc takes all memory and then says there is none",
        module(alloc=f"{TAKE_ALL} {FILL_ALL} (return (i32.const 0))"),
        "^out of memory in the guest: alloc returned 0 for on_request_headers$",
        options=("--timeout-ms", "2000"),
    ),
    Runs(
        "takes more than --memory-limit in one step",
        module(fault="(if (i32.eq (memory.grow (i32.const 40)) (i32.const -1)) (then unreachable))"),
        "^trap: unreachable in on_request_headers$",
        options=("--memory-limit", "2"),
    ),
    Runs(
        "wipes all memory but its answer's text",
        module(
            fault=f"""(drop (call $good))
                (memory.fill (i32.const 0) (i32.const 255) (i32.const {GOOD_AT}))
                (memory.fill (i32.const {OTHER_THAN_GOOD}) (i32.const 255)
                    (i32.const {wat.PAGE - OTHER_THAN_GOOD}))
                (return {wat.returns(GOOD_AT, len(GOOD))})"""
        ),
        None,
        survives=None,
    ),
]

GROW_TABLE = "(table.grow $many (ref.null func) (i32.const 1000))"
TABLE = "(table $many 0 funcref)"

_TABLES = [
    Runs(
        "grows a table to its limit, and writes past it",
        module(
            TABLE,
            fault=f"""(loop $grow (br_if $grow (i32.ne {GROW_TABLE} (i32.const -1))))
                (table.set $many (table.size $many) (ref.null func))""",
        ),
        "^trap: table out of bounds in on_request_headers$",
    ),
    Runs(
        "grows a table for ever",
        module(TABLE, fault=f"(loop $grow (drop {GROW_TABLE}) (br $grow))"),
        LATE,
        times_out=True,
    ),
    Runs(
        "grows a table by what it cannot get",
        module(
            TABLE,
            fault="""(if (i32.ne (table.grow $many (ref.null func) (i32.const -1)) (i32.const -1))
                (then unreachable))""",
        ),
        None,
        survives=True,
    ),
    Runs(
        "fills a large table for ever",
        module(
            "(table $large 1000000 funcref) (elem declare func $typed)",
            fault="""(loop $fill (table.fill $large (i32.const 0) (ref.func $typed) (i32.const 1000000))
                (br $fill))""",
        ),
        LATE,
        times_out=True,
    ),
]

OVERFLOW = "^trap: stack overflow in on_request_headers$"
_WIDE = " ".join(["i64"] * 20000)
_SET_WIDE = "".join(f"(local.set {n} (i64.extend_i32_u (local.get 0)))" for n in range(1, 20001, 40))

_STACK = [
    Runs(
        "two functions that call each other",
        module(
            "(func $one (call $two) (nop)) (func $two (call $one) (nop))",
            fault="(call $one)",
        ),
        OVERFLOW,
    ),
    Runs(
        # alloc 0, dealloc 1, $good 2, $typed 3, $recurse 4, $call_forever 5, the hook 6.
        "the hook calls itself",
        module(fault="(drop (call 6 (local.get $p) (local.get $n)))"),
        OVERFLOW,
        v1=True,
    ),
    Runs(
        "recursion through a table",
        module(
            """(type $again (func (param i32))) (table $self 1 funcref)
            (elem (table $self) (i32.const 0) func $next)
            (func $next (type $again)
                (call_indirect $self (type $again) (i32.const 0) (i32.const 0)) (nop))""",
            fault="(call $next (i32.const 0))",
        ),
        OVERFLOW,
    ),
    Runs(
        "frames of 160 kB",
        module(
            f"""(func $wide (param i32) (result i64) (local {_WIDE}) {_SET_WIDE}
                (i64.add (call $wide (i32.const 1)) (local.get 19961)))""",
            fault="(drop (call $wide (i32.const 1)))",
        ),
        OVERFLOW,
    ),
    Runs(
        "recursion that logs at every depth",
        module(
            "(func $deep (call $log (i32.const 0) (i32.const 0) (i32.const 1)) (call $deep) (nop))",
            fault="(call $deep)",
            imports=wat.imported("sentinel.log", "i32 i32 i32"),
        ),
        OVERFLOW,
    ),
    Runs(
        "a function whose name is 90 kB overflows the stack",
        module(
            f"""(func $named (@name "{"a" * 90000}\\n") (param i32) (result i32)
                (i32.add (call $named (i32.const 1)) (i32.const 1)))""",
            fault="(drop (call $named (i32.const 1)))",
        ),
        OVERFLOW,
    ),
    Runs(
        "loops deep in the stack",
        module(
            f"(func $spin {SPIN}) (func $deep (param i32) (if (i32.lt_u (local.get 0) (i32.const 2000))"
            " (then (call $deep (i32.add (local.get 0) (i32.const 1)))) (else (call $spin))))",
            fault="(call $deep (i32.const 0))",
        ),
        LATE,
        times_out=True,
    ),
]

RUNS = [*_MEMORY, *_TABLES, *_STACK]
