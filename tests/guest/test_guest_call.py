"""One call of a hook, through the compiled path (guest-abi.md, "One call", "When the module fails")."""

from __future__ import annotations

import contextlib
import re
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sentinel_wasm.errors import GuestFault
from sentinel_wasm.guest.abi import (
    HOOKS,
    ON_REQUEST_BODY,
    ON_REQUEST_COMPLETE,
    ON_REQUEST_HEADERS,
    ON_RESPONSE_BODY,
    ON_RESPONSE_HEADERS,
)
from sentinel_wasm.guest.instance import Instance

from ..conftest import resident_mib
from . import wat
from .apart import run_python
from .conftest import Load, Start, started_instance
from .steady import STEADY
from .wat import INPUT, PAGE, RESULT, returns

MEBIBYTE = 1 << 20
ADDRESS = re.compile(r"0x[0-9a-fA-F]+")

# A module that returns what its input says: the i64 in the input's first eight bytes.
OBEDIENT = wat.hook("(i64.load (local.get $p))")

# A module that returns its input, where it lies.
ECHO = "(i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32)) (i64.extend_i32_u (local.get $n)))"


def call(instance: Instance, data: bytes = b"{}", hook: int = ON_REQUEST_HEADERS) -> bytes | None:
    return instance.call(hook, data, "id-1")


def fault(instance: Instance, data: bytes = b"{}", hook: int = ON_REQUEST_HEADERS) -> str:
    """The reason for which a call fails; the instance must be lost by it."""
    assert instance.usable
    with pytest.raises(GuestFault) as caught:
        call(instance, data, hook)
    assert not instance.usable
    reason = str(caught.value)
    assert not ADDRESS.search(reason), reason
    assert reason.isprintable(), repr(reason)
    return reason


def order(pointer: int, length: int) -> bytes:
    """The input that tells OBEDIENT to return this pointer and length."""
    return struct.pack("<II", length, pointer)


# Input and result


def test_input_arrives_at_what_alloc_returned(start: Start) -> None:
    assert call(start(wat.module(wat.hook(ECHO))), b'{"a": 1}') == b'{"a": 1}'


def test_alloc_gets_the_length_of_the_input(start: Start) -> None:
    text = wat.module(
        wat.hook(returns(256, 4)),
        alloc=f"(i32.store (i32.const 256) (local.get $n)) (i32.const {INPUT})",
    )
    assert call(start(text), b"x" * 300) == struct.pack("<I", 300)


def test_input_is_given_whole_at_every_size(start: Start) -> None:
    sums = """(loop $next (if (i32.lt_u (local.get $i) (local.get $n)) (then
          (local.set $w (i64.add (local.get $w) (i64.load8_u (i32.add (local.get $p) (local.get $i)))))
          (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $next))))
        (i64.store (i32.const 256) (local.get $w))"""
    instance = start(wat.module(wat.hook(sums + returns(256, 8)), pages=40))
    for size in (1, 2, 255, 4096, 65536, 2 * MEBIBYTE):
        assert call(instance, b"\xff" * size) == struct.pack("<Q", 255 * size)


@pytest.mark.parametrize("text", ["{}", '{"decision": "allow"}', "é" * 1000, "x"])
def test_result_is_copied_out(start: Start, text: str) -> None:
    assert call(start(wat.module(wat.says(text)))) == text.encode()


def test_result_of_an_earlier_call_stays_as_it_was(start: Start) -> None:
    instance = start(wat.module(OBEDIENT, wat.data(RESULT, b"first!second")))
    first = call(instance, order(RESULT, 6))
    second = call(instance, order(RESULT + 6, 6))
    assert (first, second) == (b"first!", b"second")


@pytest.mark.parametrize(
    ("pointer", "length"),
    [(0, 0), (0, 1), (0, 2**32 - 1), (RESULT, 0), (2**32 - 1, 0), (2**31, 0)],
)
def test_pointer_or_length_of_zero_is_no_result(start: Start, pointer: int, length: int) -> None:
    instance = start(wat.module(OBEDIENT))
    assert call(instance, order(pointer, length)) is None
    assert instance.usable


def with_deciding_hook(text: str) -> str:
    """A module with this hook and, since one is required, a deciding one if it is none."""
    return wat.module(text, "" if any(f'"{name}"' in text for name in HOOKS[:4]) else wat.says("{}"))


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_called_by_its_own_name(start: Start, name: str) -> None:
    instance = start(with_deciding_hook(wat.says(f"I am {name}", name, at=RESULT + 100)))
    assert call(instance, hook=HOOKS.index(name)) == f"I am {name}".encode()


def test_hook_that_is_not_exported_cannot_be_called(start: Start) -> None:
    instance = start(wat.module(wat.says("{}")))
    with pytest.raises(ValueError, match="not exported"):
        call(instance, hook=ON_REQUEST_BODY)
    assert call(instance) == b"{}"


@pytest.mark.parametrize("hook", [-1, len(HOOKS), 2**31 - 1])
def test_number_of_no_hook_cannot_be_called(start: Start, hook: int) -> None:
    with pytest.raises(ValueError, match="not exported"):
        call(start(wat.module(wat.says("{}"))), hook=hook)


# The result's bounds


@pytest.mark.parametrize("length", [1, 2, 1000, PAGE])
def test_result_that_ends_with_the_memory_is_allowed(start: Start, length: int) -> None:
    instance = start(wat.module(OBEDIENT, pages=2))
    assert call(instance, order(2 * PAGE - length, length)) == bytes(length)


@pytest.mark.parametrize(
    ("pointer", "length"),
    [
        (2 * PAGE, 1),
        (2 * PAGE - 1, 2),
        (2 * PAGE - 1000, 1001),
        (PAGE, PAGE + 1),
        (1, 2 * PAGE),
        (2**31 - 1, 1),
        (2**31, 1),
        (2**32 - 1, 1),
        (2**32 - 1, 2),
        (2**32 - 8, 16),  # wraps around to 8 in 32 bits
        (2**32 - 1000, 2000),
    ],
)
def test_result_outside_the_memory_is_a_fault(start: Start, pointer: int, length: int) -> None:
    reason = fault(start(wat.module(OBEDIENT, pages=2)), order(pointer, length))
    assert "result of on_request_headers" in reason
    assert "outside the memory" in reason


@pytest.mark.parametrize("length", [MEBIBYTE + 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1])
@pytest.mark.parametrize("pointer", [RESULT, 2**31, 2**32 - 1])
def test_result_over_one_mebibyte_is_a_fault(start: Start, pointer: int, length: int) -> None:
    reason = fault(start(wat.module(OBEDIENT, pages=40)), order(pointer, length))
    assert "result of on_request_headers" in reason
    assert "longer than" in reason


def test_result_of_one_mebibyte_is_allowed(start: Start) -> None:
    instance = start(wat.module(OBEDIENT, wat.data(RESULT + MEBIBYTE - 1, b"!"), pages=20))
    result = call(instance, order(RESULT, MEBIBYTE))
    assert result is not None
    assert (len(result), result[-1:]) == (MEBIBYTE, b"!")


# Unsigned numbers

HUGE_PAGES = 40_000  # 2.4 GiB, of which only the touched pages cost anything
HIGH = 2**31 + 12_345
TOP = HUGE_PAGES * PAGE


def test_result_above_2_gib_is_found(start: Start) -> None:
    instance = start(wat.module(OBEDIENT, wat.data(HIGH, b"high up"), pages=HUGE_PAGES))
    assert call(instance, order(HIGH, 7)) == b"high up"


def test_result_at_the_end_of_a_memory_above_2_gib_is_found(start: Start) -> None:
    instance = start(wat.module(OBEDIENT, wat.data(TOP - 3, b"end"), pages=HUGE_PAGES))
    assert call(instance, order(TOP - 3, 3)) == b"end"


def test_result_past_the_end_of_a_memory_above_2_gib_is_a_fault(start: Start) -> None:
    instance = start(wat.module(OBEDIENT, pages=HUGE_PAGES))
    assert "outside the memory" in fault(instance, order(TOP - 3, 4))


def test_input_above_2_gib_arrives(start: Start) -> None:
    text = wat.module(wat.hook(returns(HIGH, 2)), pages=HUGE_PAGES, alloc=f"(i32.const {HIGH})")
    assert call(start(text), b"{}") == b"{}"


def test_dealloc_gets_addresses_above_2_gib(start: Start) -> None:
    instance = start(journal(result=HIGH, alloc=HIGH + 100, pages=HUGE_PAGES))
    call(instance, b"123")
    assert freed(instance)[:2] == [(HIGH + 100, 3), (HIGH, 4)]


IMAGE = bytes(range(1, 256)) * 257  # 65,535 bytes, every one of them found again by its place
SMALL = 2 * PAGE
UNPACKING = wat.module(
    wat.hook("(i64.load (local.get $p))"),
    wat.data(0, IMAGE),
    pages=2,
    alloc=f"(i32.const {SMALL - 8})",
)


@pytest.fixture(scope="module")
def unpacking(load: Load) -> list[Instance]:
    """One live instance of UNPACKING, to be replaced by who loses it."""
    return [started_instance(load(UNPACKING))]


EDGES = [0, 1, 2, 7, 8, PAGE - 1, PAGE, PAGE + 1, SMALL - 8, SMALL - 1, SMALL, SMALL + 1]
WORDS = (
    st.sampled_from([*EDGES, MEBIBYTE, MEBIBYTE + 1, 2**31 - 1, 2**31, 2**32 - 1])
    | st.integers(0, SMALL + 100)
    | st.integers(0, 2**32 - 1)
)


@STEADY
@given(pointer=WORDS, length=WORDS)
@example(pointer=2**32 - 1, length=2**32 - 1)
@example(pointer=1, length=2**32 - 1)
@example(pointer=2**32 - 4, length=8)
def test_unpacking_is_what_plain_python_says(
    unpacking: list[Instance], load: Load, pointer: int, length: int
) -> None:
    packed = order(pointer, length)
    memory = IMAGE.ljust(SMALL - 8, b"\0") + packed
    if pointer == 0 or length == 0:
        assert call(unpacking[0], packed) is None
    elif length <= MEBIBYTE and pointer + length <= len(memory):
        assert call(unpacking[0], packed) == memory[pointer : pointer + length]
    else:
        fault(unpacking[0], packed)
        unpacking[0].close()
        unpacking[0] = started_instance(load(UNPACKING))


# alloc


def test_alloc_that_returns_0_is_out_of_memory(start: Start) -> None:
    reason = fault(start(wat.module(wat.says("{}"), alloc="(i32.const 0)")))
    assert "out of memory" in reason
    assert "on_request_headers" in reason


def test_buffer_that_ends_with_the_memory_is_allowed(start: Start) -> None:
    text = wat.module(wat.hook(returns(PAGE - 5, 5)), alloc=f"(i32.const {PAGE - 5})")
    assert call(start(text), b"12345") == b"12345"


@pytest.mark.parametrize(
    "pointer", [PAGE - 4, PAGE - 1, PAGE, PAGE + 1, 2**31 - 1, 2**31, 2**32 - 5, 2**32 - 1]
)
def test_buffer_outside_the_memory_is_a_fault(start: Start, pointer: int) -> None:
    reason = fault(start(wat.module(wat.says("{}"), alloc=f"(i32.const {pointer})")), b"12345")
    assert "alloc" in reason
    assert "outside the memory" in reason


def test_memory_that_alloc_has_grown_counts(start: Start) -> None:
    grown = "(i32.mul (memory.grow (i32.const 1)) (i32.const 65536))"
    instance = start(wat.module(wat.hook(returns(PAGE, 2)), alloc=grown))
    assert call(instance, b"{}") == b"{}"


def test_memory_that_the_hook_has_grown_counts(start: Start) -> None:
    grows = "(drop (memory.grow (i32.const 3))) (i32.store8 (i32.const 262143) (i32.const 33))"
    instance = start(wat.module(wat.hook(grows + returns(4 * PAGE - 1, 1))))
    assert call(instance) == b"!"


def test_memory_beyond_what_the_hook_has_grown_does_not_count(start: Start) -> None:
    grows = "(drop (memory.grow (i32.const 3)))"
    instance = start(wat.module(wat.hook(grows + returns(4 * PAGE - 1, 2))))
    assert "outside the memory" in fault(instance)


MOVING = """
import sys, wasmtime
from sentinel_wasm.guest.instance import Instance
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.engine import Engine
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.output import GuestOutput

# An engine that reserves no room behind a memory: each growth is a new place.
config = wasmtime.Config()
config.epoch_interruption = True
config.memory_may_move = True
config.memory_reservation = 0
config.memory_reservation_for_growth = 0
module = Module(Engine(config, 64 << 20), bytes(wasmtime.wat2wasm(sys.stdin.read())), "filter.wasm")
instance = Instance(module, Limits(event_ms=10000), GuestOutput())
instance.start_within(None, 10000)
for number in range(20):
    data = b"%d" % number * 3000
    assert instance.call(0, data, "") == data
print("followed")
"""


def test_memory_that_moves_when_it_grows_is_followed() -> None:
    # In a process of its own: the engine is not the agent's.
    grow = "(drop (memory.grow (i32.const 1)))"
    text = wat.module(wat.hook(grow + ECHO), alloc=f"{grow} (i32.const {INPUT})", dealloc=grow)
    assert run_python(MOVING, text) == "followed\n"


TWO_ENGINES = """
import sys, wasmtime
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.module import Module

wasm = bytes(wasmtime.wat2wasm(sys.stdin.read()))
for engine in (make_engine(), make_engine()):
    Module(engine, wasm, "filter.wasm")
print("loaded")
"""


def test_second_engine_does_not_abort_the_process() -> None:
    assert run_python(TWO_ENGINES, wat.module(wat.says("{}"))) == "loaded\n"


# dealloc

JOURNAL = 4096  # how many times dealloc was called, then its arguments


def journal(*, result: int, alloc: int = INPUT, length: int = 4, pages: int = 1) -> str:
    """A module that keeps what dealloc was called with; its second hook tells."""
    entry = f"(i32.add (i32.const {JOURNAL + 4}) (i32.mul (i32.load (i32.const {JOURNAL})) (i32.const 8)))"
    return wat.module(
        wat.hook(returns(result, length)),
        wat.hook(returns(JOURNAL, 256), "on_response_headers"),
        pages=pages,
        alloc=f"(i32.const {alloc})",
        dealloc=f"""(i32.store {entry} (local.get $p))
            (i32.store offset=4 {entry} (local.get $n))
            (i32.store (i32.const {JOURNAL}) (i32.add (i32.load (i32.const {JOURNAL})) (i32.const 1)))""",
    )


def freed(instance: Instance) -> list[tuple[int, int]]:
    """What dealloc has been called with so far, in order."""
    told = call(instance, b"tell", ON_RESPONSE_HEADERS)
    assert told is not None
    count, *numbers = struct.unpack("<I62I", told[: 4 + 62 * 4])
    return list(zip(numbers[::2], numbers[1::2], strict=True))[:count]


def test_input_and_result_are_freed_once_in_that_order(start: Start) -> None:
    instance = start(journal(result=RESULT))
    call(instance, b"123")
    assert freed(instance) == [(INPUT, 3), (RESULT, 4)]


def test_every_call_frees_its_own(start: Start) -> None:
    instance = start(journal(result=RESULT))
    for length in (1, 2, 3):
        call(instance, b"x" * length)
    assert freed(instance) == [(INPUT, 1), (RESULT, 4), (INPUT, 2), (RESULT, 4), (INPUT, 3), (RESULT, 4)]


@pytest.mark.parametrize(("pointer", "length"), [(0, 0), (0, 4), (RESULT, 0)])
def test_only_input_is_freed_where_there_is_no_result(start: Start, pointer: int, length: int) -> None:
    instance = start(journal(result=pointer, length=length))
    call(instance, b"123")
    assert freed(instance) == [(INPUT, 3)]


DEALLOC_TRAPS = {
    "input": f"(if (i32.eq (local.get $p) (i32.const {INPUT})) (then unreachable))",
    "result": f"(if (i32.eq (local.get $p) (i32.const {RESULT})) (then unreachable))",
}


@pytest.mark.parametrize("which", DEALLOC_TRAPS)
def test_trap_in_dealloc_costs_the_instance_not_the_result(start: Start, which: str) -> None:
    instance = start(wat.module(wat.says('{"decision": "block"}'), dealloc=DEALLOC_TRAPS[which]))
    assert call(instance) == b'{"decision": "block"}'
    assert not instance.usable


def test_trap_in_dealloc_costs_the_instance_where_there_is_no_result(start: Start) -> None:
    instance = start(wat.module(wat.hook(returns(0, 0)), dealloc="unreachable"))
    assert call(instance) is None
    assert not instance.usable


def test_exit_in_dealloc_costs_the_instance_not_the_result(start: Start) -> None:
    imports = wat.imported("wasi_snapshot_preview1.proc_exit", "i32")
    text = wat.module(wat.says("{}"), imports=imports, dealloc="(call $proc_exit (i32.const 1))")
    instance = start(text)
    assert call(instance) == b"{}"
    assert not instance.usable


# Faults


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("unreachable", "unreachable"),
        ("(i64.load (i32.const -1))", "memory out of bounds"),
        ("(i64.div_s (i64.const 1) (i64.const 0))", "integer division by zero"),
        ("(i64.div_s (i64.const 0x8000000000000000) (i64.const -1))", "integer overflow"),
        ("(i64.trunc_f64_s (f64.const nan))", "bad conversion to integer"),
        ("(call_indirect (result i64) (i32.const 0))", "indirect call to null"),
        ("(call_indirect (result i64) (i32.const 9))", "table out of bounds"),
        ("(call_indirect (result i32) (i32.const 1)) (i64.extend_i32_u)", "bad signature"),
        ("(call $endless (local.get $p) (local.get $n))", "stack overflow"),
    ],
)
def test_trap_is_named_with_its_hook(start: Start, body: str, words: str) -> None:
    more = """(table 2 funcref) (func $nothing) (elem (i32.const 1) $nothing)
        (func $endless (param i32 i32) (result i64)
          (i64.add (call $endless (local.get 0) (local.get 1)) (i64.const 1)))"""
    assert fault(start(wat.module(more, wat.hook(body)))) == f"trap: {words} in on_request_headers"


@pytest.mark.parametrize("name", HOOKS)
def test_trap_names_the_hook_that_was_called(start: Start, name: str) -> None:
    instance = start(with_deciding_hook(wat.hook("unreachable", name)))
    assert fault(instance, hook=HOOKS.index(name)) == f"trap: unreachable in {name}"


def test_trap_in_alloc_is_named_with_the_hook(start: Start) -> None:
    reason = fault(start(wat.module(wat.says("{}"), alloc="unreachable")))
    assert re.fullmatch(r"trap: unreachable in alloc\b.*on_request_headers", reason), reason


def test_uncaught_exception_is_named(start: Start) -> None:
    reason = fault(start(wat.module("(tag $e)", wat.hook("(throw $e)"))))
    assert re.fullmatch(r".*exception.* in on_request_headers", reason), reason


@pytest.mark.parametrize(
    ("name", "parameters", "arguments"),
    [
        ("clock_res_get", "i32 i32", "(i32.const 0) (i32.const -1)"),
        ("environ_sizes_get", "i32 i32", "(i32.const -1) (i32.const -1)"),
        ("proc_raise", "i32", "(i32.const -1)"),
    ],
)
def test_wasi_call_that_traps_is_told_in_words(
    start: Start, name: str, parameters: str, arguments: str
) -> None:
    imports = wat.imported(f"{wat.WASI}.{name}", parameters, "i32")
    reason = fault(
        start(wat.module(wat.hook(f"(drop (call ${name} {arguments})) (i64.const 0)"), imports=imports))
    )
    assert re.match(r"[A-Za-z]", reason), reason
    assert reason.endswith(" in on_request_headers")


LOSSES = {
    "trap": ("unreachable", f"(i32.const {INPUT})"),
    "result": (returns(PAGE, 1), f"(i32.const {INPUT})"),
    "length": (returns(RESULT, 2**32 - 1), f"(i32.const {INPUT})"),
    "alloc 0": ("(i64.const 0)", "(i32.const 0)"),
    "alloc outside": ("(i64.const 0)", "(i32.const -1)"),
    "alloc trap": ("(i64.const 0)", "unreachable"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_instance_is_never_called_again_after_a_fault(start: Start, loss: str) -> None:
    body, alloc = LOSSES[loss]
    instance = start(wat.module(wat.hook(body), wat.says("{}", "on_response_headers"), alloc=alloc))
    fault(instance)
    for hook in (ON_REQUEST_HEADERS, ON_RESPONSE_HEADERS):
        with pytest.raises(ValueError, match="must not be called again"):
            call(instance, hook=hook)


def test_instance_is_never_called_again_after_dealloc_trapped(start: Start) -> None:
    instance = start(wat.module(wat.says("{}"), dealloc="unreachable"))
    call(instance)
    with pytest.raises(ValueError, match="must not be called again"):
        call(instance)


def test_closed_instance_is_not_called(start: Start) -> None:
    instance = start(wat.module(wat.says("{}")))
    instance.close()
    with pytest.raises(ValueError, match="must not be called again"):
        call(instance)


def test_fault_of_one_instance_leaves_the_others(start: Start) -> None:
    text = wat.module(OBEDIENT, wat.data(RESULT, b"{}"))
    one, other = start(text), start(text)
    fault(one, order(PAGE, 1))
    assert call(other, order(RESULT, 2)) == b"{}"


def test_reason_of_one_fault_is_not_told_of_the_next(start: Start) -> None:
    imports = wat.imported("wasi_snapshot_preview1.proc_exit", "i32")
    exits = "(call $proc_exit (i32.const 7)) (i64.const 0)"
    dying = start(wat.module(wat.hook(exits), imports=imports))
    trapping = start(wat.module(wat.hook("unreachable")))
    assert "proc_exit(7)" in fault(dying)
    assert fault(trapping) == "trap: unreachable in on_request_headers"


# Memory of what went wrong

HERE = Path("/proc/self")
COUNT = 1000
LONG_NAME = "n" * 50_000  # every trap's and error's backtrace holds a copy of it

LEAKS = {
    "trap in the hook": (f"(call ${LONG_NAME})", ""),
    "trap in dealloc": (returns(RESULT, 2), f"(drop (call ${LONG_NAME}))"),
    "error of WASI": (f"(drop (call ${LONG_NAME}_wasi)) (i64.const 0)", ""),
}


@pytest.mark.parametrize("kind", LEAKS)
def test_faults_leave_no_memory_behind(load: Load, kind: str) -> None:
    body, dealloc = LEAKS[kind]
    module = load(
        wat.module(
            f"(func ${LONG_NAME} (result i64) unreachable)",
            f"(func ${LONG_NAME}_wasi (result i32) (call $environ_sizes_get (i32.const -1) (i32.const -1)))",
            wat.hook(body),
            wat.data(RESULT, b"{}"),
            imports=wat.imported(f"{wat.WASI}.environ_sizes_get", "i32 i32", "i32"),
            dealloc=dealloc,
        )
    )

    def lose_instances(count: int) -> None:
        for _ in range(count):
            instance = started_instance(module)
            with contextlib.suppress(GuestFault):
                call(instance)
            assert not instance.usable
            instance.close()

    lose_instances(200)
    before = resident_mib(HERE)
    lose_instances(COUNT)
    # One name's copy leaked by each fault would be 50 MB.
    assert resident_mib(HERE) - before < 25


def test_large_results_leave_no_memory_behind(start: Start) -> None:
    instance = start(wat.module(OBEDIENT, pages=20))
    for _ in range(20):
        call(instance, order(RESULT, MEBIBYTE))
    before = resident_mib(HERE)
    for _ in range(300):
        call(instance, order(RESULT, MEBIBYTE))
    assert resident_mib(HERE) - before < 64


# Every hook shares the path


@pytest.mark.parametrize("hook", [ON_REQUEST_BODY, ON_RESPONSE_BODY, ON_REQUEST_COMPLETE])
def test_other_hooks_results_are_checked_too(start: Start, hook: int) -> None:
    instance = start(wat.module(wat.hook("(i64.load (local.get $p))", HOOKS[hook]), wat.says("{}")))
    assert f"result of {HOOKS[hook]}" in fault(instance, order(PAGE, 1), hook)
