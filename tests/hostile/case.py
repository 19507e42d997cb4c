"""What a faulty module is, as data, and the template that most are made from."""

from __future__ import annotations

from dataclasses import dataclass

from sentinel_wasm.protocol.events import EventKind

from ..guest import wat

# A faulty event is a POST with a long path, so that hooks (by the method) and alloc and dealloc (by the
# length) can tell it from a good one.
LONG = 500
FAULTY_URI = "/" + "x" * 600
IS_FAULTY = "(i32.eq (i32.load8_u offset=11 (local.get $p)) (i32.const 80))"
IS_LONG = f"(i32.gt_u (local.get $n) (i32.const {LONG}))"

# The good answer counts the calls of its instance, in two letters: what it says shows whether it is fresh.
GOOD_AT = 16384
GOOD = b'{"decision":"block","status":403,"body":"by the rule","tags":["call-aa"]}'
_LETTERS_AT = GOOD_AT + GOOD.index(b"aa")
_COUNT_AT = 256
_WAS_FAULTY_AT = 260

GOOD_FUNCTION = f"""{wat.data(GOOD_AT, GOOD)}
    (func $good (result i64) (local $count i32)
        (local.set $count (i32.add (i32.load8_u (i32.const {_COUNT_AT})) (i32.const 1)))
        (i32.store8 (i32.const {_COUNT_AT}) (local.get $count))
        (i32.store8 (i32.const {_LETTERS_AT})
            (i32.add (i32.const 97) (i32.and (i32.const 15) (i32.shr_u (local.get $count) (i32.const 4)))))
        (i32.store8 (i32.const {_LETTERS_AT + 1})
            (i32.add (i32.const 97) (i32.and (i32.const 15) (local.get $count))))
        {wat.returns(GOOD_AT, len(GOOD))})"""

# Odd things that faults need.
SUPPLIES = """(type $nothing (func)) (table $functions 2 10 funcref) (elem (i32.const 1) func $typed)
    (func $typed (param i32)) (tag $thrown (param i32)) (data $segment "segment")
    (func $recurse (param $depth i32) (result i32)
        (i32.add (i32.const 1) (call $recurse (i32.add (local.get $depth) (i32.const 1)))))
    (func $call_forever (return_call $call_forever))"""


def calls_of(tag: str) -> int:
    """The calls of its instance that a good answer's tag counts, modulo 256."""
    high, low = (ord(letter) - 97 for letter in tag.removeprefix("call-"))
    return high << 4 | low


def module(
    *fields: str,
    fault: str = "",
    each: str = "",
    alloc: str = "",
    dealloc: str = "",
    dealloc_result: str = "",
    imports: str = "",
    pages: int = 1,
) -> str:
    """A module that answers well, but for its faults.

    `fault` is what on_request_headers does with a faulty event before it answers well, `each` what it does
    with each event; `alloc` and `dealloc` are what these do with a faulty event's input, `dealloc_result`
    what dealloc does with its result.
    """
    was_faulty = f"(i32.load (i32.const {_WAS_FAULTY_AT}))"
    is_result = f"(i32.eq (local.get $p) (i32.const {GOOD_AT}))"
    return wat.module(
        GOOD_FUNCTION,
        SUPPLIES,
        wat.hook(
            f"(i32.store (i32.const {_WAS_FAULTY_AT}) {IS_FAULTY})"
            f"{each} (if {IS_FAULTY} (then {fault})) (call $good)"
        ),
        *fields,
        imports=imports,
        pages=pages,
        alloc=f"(if {IS_LONG} (then {alloc})) (i32.const {wat.INPUT})",
        dealloc=f"(if {IS_LONG} (then {dealloc}))"
        f"(if (i32.and {was_faulty} {is_result}) (then {dealloc_result}))",
    )


@dataclass(frozen=True, slots=True)
class Refused:
    """A module that must not start: `says` matches the one line on stderr."""

    name: str
    text: str
    says: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Runs:
    """A module that starts, and fails on a faulty event.

    `reason` matches what the answer's reason_codes and the log say; None where the answer must be the good
    one all the same. `lost` matches what the log says where the instance is lost though its answer counts.
    `survives`: the same instance answers the next event; None where either will do. `times_out`: the fault
    lasts until the deadline. `recovers`: a good event is answered well afterwards. `v1`: over v1 too.
    """

    name: str
    text: str
    reason: str | None
    lost: str | None = None
    survives: bool | None = False
    times_out: bool = False
    recovers: bool = True
    event: EventKind = EventKind.REQUEST_HEADERS
    v1: bool = False
    options: tuple[str, ...] = ()


def names(cases: list[Refused] | list[Runs]) -> list[str]:
    """The cases' names, as pytest's ids."""
    found = [case.name for case in cases]
    assert len(set(found)) == len(found), "two cases have one name"
    return found
