"""Modules that trap or loop: in alloc, the hooks, dealloc and on_configure."""

from __future__ import annotations

from sentinel_wasm.protocol.events import EventKind

from ..guest import wat
from .agents import DEADLINE
from .case import Runs, module
from .faults import FEW, FEWEST, SPIN, TRAPS

_EVENTS = {
    "on_request_body": EventKind.REQUEST_BODY_CHUNK,
    "on_response_headers": EventKind.RESPONSE_HEADERS,
    "on_response_body": EventKind.RESPONSE_BODY_CHUNK,
    "on_request_complete": EventKind.REQUEST_COMPLETE,
}


def reconfigured(fault: str) -> str:
    """An on_configure that takes the empty configuration at start, and fails on any other."""
    return wat.hook(
        f"(if (i32.gt_u (local.get $n) (i32.const 13)) (then {fault})) (i64.const 0)", "on_configure"
    )


_IN_THE_HOOK = [
    Runs(
        f"{name} in the hook",
        module(fault=code),
        f"^{reason} in on_request_headers$",
        v1=name in ("unreachable", "endless recursion"),
    )
    for name, (code, reason) in TRAPS.items()
]

_IN_OTHER_HOOKS = [
    Runs(
        f"unreachable in {hook}",
        module(wat.hook("unreachable", hook)),
        f"^trap: unreachable in {hook}$",
        event=event,
        v1=hook == "on_request_body",
    )
    for hook, event in _EVENTS.items()
]

_IN_ALLOC = [
    Runs(
        f"{name} in alloc",
        module(alloc=code),
        f"^{reason} in alloc for on_request_headers$",
        v1=name == "unreachable",
    )
    for name, (code, reason) in FEW.items()
]

_IN_DEALLOC = [
    Runs(
        f"{name} in dealloc of the input",
        module(dealloc=code),
        None,
        lost=f"^{reason} in dealloc for on_request_headers$",
        v1=name == "unreachable",
    )
    for name, (code, reason) in FEWEST.items()
]

_IN_CONFIGURE = [
    Runs(
        f"{name} in on_configure, later",
        module(reconfigured(code)),
        f"{reason} in on_configure",
        survives=None,
        event=EventKind.CONFIGURE,
        v1=name == "unreachable",
    )
    for name, (code, reason) in FEWEST.items()
]

_LOOPS = [
    Runs(
        "loop in the hook",
        module(fault=SPIN),
        f"^{DEADLINE} in on_request_headers$",
        times_out=True,
        v1=True,
    ),
    Runs(
        "endless tail calls in the hook",
        module(fault="(call $call_forever)"),
        f"^{DEADLINE} in on_request_headers$",
        times_out=True,
    ),
    Runs(
        "loop in alloc",
        module(alloc=SPIN),
        f"^{DEADLINE} in alloc for on_request_headers$",
        times_out=True,
    ),
    Runs(
        "loop in dealloc of the input",
        module(dealloc=SPIN),
        None,
        lost=f"^{DEADLINE} in dealloc for on_request_headers$",
        times_out=True,
    ),
    Runs(
        "loop in dealloc of the result",
        module(dealloc_result=SPIN),
        None,
        lost=f"^{DEADLINE} in dealloc for on_request_headers$",
        times_out=True,
    ),
    *(
        Runs(
            f"loop in {hook}",
            module(wat.hook(f"{SPIN} (i64.const 0)", hook)),
            f"^{DEADLINE} in {hook}$",
            times_out=True,
            event=_EVENTS[hook],
        )
        for hook in ("on_request_body", "on_response_headers")
    ),
]

_ALWAYS = [
    Runs(
        "alloc never works",
        wat.module(wat.says("{}"), alloc="unreachable"),
        "^trap: unreachable in alloc for on_request_headers$",
        recovers=False,
    ),
    Runs(
        "the hook never works",
        wat.module(wat.hook("(drop (i32.load (i32.const -1))) (i64.const 0)")),
        "^trap: memory out of bounds in on_request_headers$",
        recovers=False,
        v1=True,
    ),
    Runs(
        "the hook always loops",
        wat.module(wat.hook(f"{SPIN} (i64.const 0)")),
        f"^{DEADLINE} in on_request_headers$",
        times_out=True,
        recovers=False,
    ),
    Runs(
        "the first call of an instance fails",
        wat.module(wat.hook("(if (i32.eqz (i32.load (i32.const 256))) (then unreachable)) (i64.const 0)")),
        "^trap: unreachable in on_request_headers$",
        recovers=False,
    ),
    Runs(
        "a hostcall stands in for alloc",
        f"""(module (import "{wat.WASI}" "fd_close" (func $close (param i32) (result i32)))
            (export "alloc" (func $close)) (memory (export "memory") 1)
            (func (export "dealloc") (param i32 i32))
            {wat.hook("(drop (i32.load (i32.const -1))) (i64.const 0)")})""",
        "in (alloc for )?on_request_headers$",
        recovers=False,
    ),
]

RUNS = [
    *_IN_THE_HOOK,
    *_IN_OTHER_HOOKS,
    *_IN_ALLOC,
    *_IN_DEALLOC,
    Runs(
        "unreachable in dealloc of the result",
        module(dealloc_result="unreachable"),
        None,
        lost="^trap: unreachable in dealloc for on_request_headers$",
    ),
    *_IN_CONFIGURE,
    *_LOOPS,
    *_ALWAYS,
]
