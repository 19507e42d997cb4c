"""Modules whose pointers and lengths lie outside their memory, or just inside."""

from __future__ import annotations

from sentinel_wasm.protocol.events import EventKind

from ..guest import wat
from .case import GOOD, GOOD_AT, LONG, Runs, module
from .places import reconfigured

MIB = 1024 * 1024
OUTSIDE = "^the result of on_request_headers lies outside the memory$"
LONGER = "^the result of on_request_headers is longer than 1048576 bytes$"
ALLOC_OUTSIDE = "^alloc returned a buffer outside the memory for on_request_headers$"
SIXTEEN_MIB = 256  # pages
REFUSAL = b'{"error":"no \\n rules"}'


def _result(pointer: int, length: int, pages: int = 1) -> str:
    return module(fault=f"(return {wat.returns(pointer, length)})", pages=pages)


def _allocates(pointer: int) -> str:
    return module(alloc=f"(return (i32.const {pointer}))")


def _padded(length: int) -> str:
    """The good result, and spaces behind it up to a length."""
    end = GOOD_AT + len(GOOD)
    return module(
        fault=f"""(memory.fill (i32.const {end}) (i32.const 32) (i32.const {length - len(GOOD)}))
            (drop (call $good)) (return {wat.returns(GOOD_AT, length)})""",
        pages=SIXTEEN_MIB,
    )


_BAD_RESULTS = [
    Runs("the result is past the end", _result(wat.PAGE, 1), OUTSIDE, v1=True),
    Runs("the result ends past the end", _result(wat.PAGE - 4, 5), OUTSIDE),
    Runs("the result's end overflows 32 bits", _result(0xFFFFFFF0, 0x20), OUTSIDE),
    Runs("the result's pointer has the sign bit set", _result(0x80000000, 20), OUTSIDE),
    Runs("the result's length has the sign bit set", _result(GOOD_AT, 0x80000001), LONGER),
    Runs("the result is -1", _result(0xFFFFFFFF, 0xFFFFFFFF), LONGER),
    Runs("the result is a 32-bit pointer", _result(0xFFFFFFFF, GOOD_AT), OUTSIDE),
    Runs("the result is longer than the memory", _result(GOOD_AT, MIB), OUTSIDE),
    Runs("the result is 1 MiB and 1 byte", _padded(MIB + 1), LONGER, v1=True),
    Runs("the result is the whole memory", _result(1, SIXTEEN_MIB * wat.PAGE - 1, SIXTEEN_MIB), LONGER),
    Runs("the result is 1 MiB", _padded(MIB), None, survives=True),
]

_BAD_ALLOCS = [
    Runs("alloc returns 0", _allocates(0), "^out of memory in the guest: alloc returned 0"),
    Runs("alloc returns -1", _allocates(-1), ALLOC_OUTSIDE),
    Runs("alloc returns the memory's end", _allocates(wat.PAGE), ALLOC_OUTSIDE),
    Runs("alloc returns a buffer across the end", _allocates(wat.PAGE - 100), ALLOC_OUTSIDE),
    Runs("alloc returns a pointer with the sign bit", _allocates(0x80000000), ALLOC_OUTSIDE),
]

_OTHER = [
    Runs(
        "a memory of no pages",
        wat.module(wat.hook("(i64.const 0)"), pages=0),
        ALLOC_OUTSIDE,
        recovers=False,
    ),
    Runs(
        "on_configure answers outside the memory",
        module(reconfigured(f"(return {wat.returns(wat.PAGE, 9)})")),
        "the result of on_configure lies outside the memory",
        survives=None,
        event=EventKind.CONFIGURE,
    ),
    Runs(
        "on_configure answers no JSON",
        module(wat.data(8192, b"yes"), reconfigured(f"(return {wat.returns(8192, 3)})")),
        "result of on_configure is not JSON",
        survives=None,
        event=EventKind.CONFIGURE,
    ),
    Runs(
        "on_configure refuses",
        module(wat.data(8192, REFUSAL), reconfigured(f"(return {wat.returns(8192, len(REFUSAL))})")),
        "the module refuses it: no \n rules",
        survives=None,
        event=EventKind.CONFIGURE,
    ),
    Runs(
        # And dealloc scribbles over it: the host must have copied it by then.
        "the result is in the input's buffer",
        module(
            fault=f"""(drop (call $good))
                (memory.copy (local.get $p) (i32.const {GOOD_AT}) (i32.const {len(GOOD)}))
                (return (i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32))
                    (i64.const {len(GOOD)})))""",
            dealloc=f"(memory.fill (local.get $p) (i32.const 255) (i32.const {len(GOOD)}))",
        ),
        None,
        survives=True,
    ),
    Runs(
        "the result is the input",
        module(
            fault="""(return (i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32))
                (i64.extend_i32_u (local.get $n))))""",
        ),
        "^result of on_request_headers: decision is missing",
        survives=True,
    ),
    Runs(
        # The memory moves or grows in every call of the guest.
        "the result is where the memory has just grown",
        module(
            fault=f"""(local.set $i (i32.mul (memory.grow (i32.const 100)) (i32.const {wat.PAGE})))
                (drop (call $good))
                (memory.copy (local.get $i) (i32.const {GOOD_AT}) (i32.const {len(GOOD)}))
                (return (i64.or (i64.shl (i64.extend_i32_u (local.get $i)) (i64.const 32))
                    (i64.const {len(GOOD)})))""",
            alloc=f"(return (i32.mul (memory.grow (i32.const 10)) (i32.const {wat.PAGE})))",
            dealloc="(drop (memory.grow (i32.const 10)))",
        ),
        None,
        survives=True,
    ),
    Runs(
        # Functions are numbered as the template has them: alloc 0, dealloc 1.
        "the hook allocates, and frees what is not its own",
        module(
            fault="""(loop $again
                (drop (call 0 (local.get $i)))
                (call 1 (local.get $p) (local.get $i))
                (call 1 (i32.const -1) (i32.const -1))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $i) (i32.const 1000))))"""
        ),
        None,
        survives=True,
    ),
    Runs(
        "alloc frees and dealloc allocates",
        module(
            alloc=f"(call 1 (i32.const 0) (i32.const {LONG + 1}))",
            dealloc=f"(drop (call 0 (i32.const {LONG + 1})))",
        ),
        "^trap: stack overflow in alloc for on_request_headers$",
    ),
]

RUNS = [*_BAD_RESULTS, *_BAD_ALLOCS, *_OTHER]
