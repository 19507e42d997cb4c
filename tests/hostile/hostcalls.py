"""Modules that misuse what they may import."""

from __future__ import annotations

import struct

from ..guest import wat
from ..guest.wat import ABSOLUTE, REALTIME, WASI, clock
from .agents import DEADLINE
from .case import Runs, module
from .hogs import LATE, MOST_BYTES, TAKE_ALL

HOURS = 10 * 3600 * 10**9

# Where faults keep what they give to imports.
ASKED = 20000
EVENTS = 40000
COUNT = 300

EXIT = wat.imported(f"{WASI}.proc_exit", "i32")
POLL = wat.imported(f"{WASI}.poll_oneoff", "i32 i32 i32 i32", "i32")
WRITE = wat.imported(f"{WASI}.fd_write", "i32 i32 i32 i32", "i32")
RANDOM = wat.imported(f"{WASI}.random_get", "i32 i32", "i32")
CLOCK = wat.imported(f"{WASI}.clock_time_get", "i32 i64 i32", "i32")
LOG = wat.imported("sentinel.log", "i32 i32 i32")
ABORT = wat.imported("env.abort", "i32 i32 i32 i32")


def poll(*subscriptions: bytes) -> tuple[str, str]:
    """The data of these subscriptions, and the call that waits for the first of them."""
    return (
        wat.data(ASKED, b"".join(subscriptions)),
        f"(drop (call $poll_oneoff (i32.const {ASKED}) (i32.const {EVENTS})"
        f" (i32.const {len(subscriptions)}) (i32.const {COUNT})))",
    )


def must_fail(call: str) -> str:
    """Trap where a WASI call says that it succeeded."""
    return f"(if (i32.eqz {call}) (then unreachable))"


LONG_SLEEP, SLEEP_LONG = poll(clock(HOURS))


def _sleeps(name: str, *subscriptions: bytes) -> Runs:
    asked, call = poll(*subscriptions)
    return Runs(name, module(asked, fault=call, imports=POLL, pages=3), LATE, times_out=True)


_SLEEP = [
    Runs(
        "sleeps for hours",
        module(LONG_SLEEP, fault=SLEEP_LONG, imports=POLL),
        LATE,
        times_out=True,
        v1=True,
    ),
    _sleeps("sleeps until the year 2286", clock(10**19, which=REALTIME, flags=ABSOLUTE)),
    _sleeps("sleeps until the monotonic clock overflows", clock(2**64 - 1, flags=ABSOLUTE)),
    _sleeps("sleeps for all of 64 bits", clock(2**64 - 1, which=REALTIME)),
    _sleeps("sleeps on 400 subscriptions", *[clock(HOURS + n) for n in range(400)]),
    Runs(
        "sleeps in dealloc",
        module(LONG_SLEEP, dealloc=SLEEP_LONG, imports=POLL),
        None,
        lost=f"^{DEADLINE} in dealloc for on_request_headers$",
        times_out=True,
    ),
    Runs(
        "sleeps in short naps for ever",
        module(
            wat.data(ASKED, clock(1000)),
            fault=f"""(loop $nap (drop (call $poll_oneoff (i32.const {ASKED}) (i32.const {EVENTS})
                (i32.const 1) (i32.const {COUNT}))) (br $nap))""",
            imports=POLL,
        ),
        LATE,
        times_out=True,
    ),
    Runs(
        "polls with bad pointers and counts",
        module(
            LONG_SLEEP,
            fault="".join(
                must_fail(f"(call $poll_oneoff {' '.join(f'(i32.const {value})' for value in values)})")
                for values in [
                    (-1, EVENTS, 1, COUNT),
                    (ASKED, -1, 1, COUNT),
                    (ASKED, EVENTS, 1, -1),
                    (ASKED, EVENTS, 0, COUNT),
                    (ASKED, EVENTS, -1, COUNT),
                    (ASKED, EVENTS, 1_000_000, COUNT),
                    (wat.PAGE - 47, EVENTS, 1, COUNT),
                    (ASKED, wat.PAGE - 31, 1, COUNT),
                ]
            ),
            imports=POLL,
        ),
        None,
        survives=True,
    ),
]

_EXIT = [
    Runs(
        "exits with 0",
        module(fault="(call $proc_exit (i32.const 0))", imports=EXIT),
        r"^the module called proc_exit\(0\) in on_request_headers$",
        v1=True,
    ),
    Runs(
        "exits in alloc",
        module(alloc="(call $proc_exit (i32.const -1))", imports=EXIT),
        r"^the module called proc_exit\(-1\) in alloc for on_request_headers$",
    ),
    Runs(
        "exits in dealloc",
        module(dealloc="(call $proc_exit (i32.const 0))", imports=EXIT),
        None,
        lost=r"^the module called proc_exit\(0\) in dealloc for on_request_headers$",
    ),
]

# Iovecs: a text of 16 lines, the whole memory, past the end, and one that ends outside.
IOVECS = struct.pack("<8I", EVENTS, 160, 0, wat.PAGE, 0xFFFFFFF0, 0x20, wat.PAGE - 1, 2)
PRINTED = wat.data(ASKED, IOVECS) + wat.data(EVENTS, b"nine...\x1b\xff\n" * 16)


def _write(fd: int, iovecs: int, count: int, written: int = COUNT) -> str:
    return f"(call $fd_write (i32.const {fd}) (i32.const {iovecs}) (i32.const {count}) (i32.const {written}))"


_OUTPUT = [
    Runs(
        "prints for ever",
        module(
            PRINTED,
            fault=f"(loop $print (drop {_write(1, ASKED, 2)}) (drop {_write(2, ASKED, 1)}) (br $print))",
            imports=WRITE,
        ),
        LATE,
        times_out=True,
        v1=True,
    ),
    Runs(
        "prints from bad pointers, to files it does not have",
        module(
            PRINTED,
            fault="".join(
                must_fail(call)
                for call in [
                    _write(1, ASKED + 16, 1),
                    _write(1, ASKED + 24, 1),
                    _write(2, ASKED, 4),
                    _write(1, -1, 1),
                    _write(1, wat.PAGE - 7, 1),
                    _write(1, ASKED, -1),
                    _write(1, ASKED, 1, -1),
                    _write(0, ASKED, 1),
                    _write(3, ASKED, 1),
                    _write(-1, ASKED, 1),
                ]
            ),
            imports=WRITE,
        ),
        None,
        survives=True,
    ),
    Runs(
        "logs for ever",
        module(
            fault=f"""{TAKE_ALL} (loop $say (call $log (i32.const 2) (i32.const 0)
                (i32.const {MOST_BYTES})) (br $say))""",
            imports=LOG,
        ),
        LATE,
        times_out=True,
    ),
    Runs(
        "logs from bad pointers at levels that are none",
        module(
            fault="".join(
                f"(call $log (i32.const {level}) (i32.const {pointer}) (i32.const {length}))"
                for level, pointer, length in [
                    (0, -1, 1),
                    (1, 0, -1),
                    (-1, wat.PAGE, 0),
                    (2, wat.PAGE - 1, 2),
                    (99, 0x80000000, 0x80000000),
                    (0, 0, 0),
                ]
            ),
            imports=LOG,
        ),
        None,
        survives=True,
    ),
]

_ABORTED = r"^abort: {} \({}\) in on_request_headers$"


def _abort(message: int, file: int) -> str:
    return f"(call $abort (i32.const {message}) (i32.const {file}) (i32.const -1) (i32.const 0x80000000))"


_ENV = [
    Runs(
        "aborts with pointers past the end",
        module(fault=_abort(-1, wat.PAGE), imports=ABORT),
        _ABORTED.format("no message", r"\?:-1:-2147483648"),
        v1=True,
    ),
    Runs(
        "aborts with pointers near 0",
        module(fault=_abort(1, 3), imports=ABORT),
        _ABORTED.format("no message", r"\?:-1:-2147483648"),
    ),
    Runs(
        "aborts with a message that ends past the memory",
        module(wat.data(ASKED, b"\xff\xff\xff\xff"), fault=_abort(ASKED + 4, ASKED + 4), imports=ABORT),
        "^abort: .* in on_request_headers$",
    ),
    Runs(
        "aborts with half a surrogate and control characters",
        module(
            wat.data(ASKED, struct.pack("<I4H", 8, 0xD800, 13, 10, 0)),
            fault=_abort(ASKED + 4, 0),
            imports=ABORT,
        ),
        r"^abort: (?s:.*)\(\?:-1:-2147483648\) in on_request_headers$",
    ),
    Runs(
        "draws random bytes over all memory for ever",
        module(
            fault=f"""{TAKE_ALL} (loop $draw
                (drop (call $random_get (i32.const 32768) (i32.const {MOST_BYTES}))) (br $draw))""",
            imports=RANDOM,
        ),
        LATE,
        times_out=True,
    ),
    Runs(
        "draws random bytes to bad pointers",
        module(
            fault="".join(
                must_fail(f"(call $random_get (i32.const {pointer}) (i32.const {length}))")
                for pointer, length in [(-1, 2), (0, -1), (wat.PAGE, 1), (wat.PAGE - 4, 5)]
            ),
            imports=RANDOM,
        ),
        None,
        survives=True,
    ),
    Runs(
        "asks for the time for ever",
        module(
            fault="""(loop $ask (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 304)))
                (br $ask))""",
            imports=CLOCK,
        ),
        LATE,
        times_out=True,
    ),
    Runs(
        "asks for the time of clocks that are none, to bad pointers",
        module(
            fault="".join(
                must_fail(f"(call $clock_time_get (i32.const {clock}) (i64.const 1) (i32.const {pointer}))")
                for clock, pointer in [(0, -1), (1, wat.PAGE - 7), (-1, 304), (4, 304)]
            ),
            imports=CLOCK,
        ),
        None,
        survives=True,
    ),
    Runs(
        "yields for ever",
        module(
            fault="(loop $yield (drop (call $sched_yield)) (br $yield))",
            imports=f'(import "{WASI}" "sched_yield" (func $sched_yield (result i32)))',
        ),
        LATE,
        times_out=True,
    ),
]

_FILES = [
    Runs(
        f"{name} of each descriptor",
        module(
            wat.data(ASKED, b"/etc/passwd\0\0\0\0\0"),
            fault="".join(must_fail(call.format(fd)) for fd in (3, 4, 5, 10, 1000, -1)),
            imports=wat.imported(f"{WASI}.{name}", parameters, "i32"),
        ),
        None,
        survives=True,
    )
    for name, parameters, call in [
        (
            "path_open",
            "i32 i32 i32 i32 i32 i64 i64 i32 i32",
            f"(call $path_open (i32.const {{}}) (i32.const 1) (i32.const {ASKED}) (i32.const 11) "
            "(i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 304))",
        ),
        (
            "fd_prestat_get",
            "i32 i32",
            "(call $fd_prestat_get (i32.const {}) (i32.const 304))",
        ),
        (
            "sock_accept",
            "i32 i32 i32",
            "(call $sock_accept (i32.const {}) (i32.const 0) (i32.const 304))",
        ),
    ]
]

RUNS = [*_SLEEP, *_EXIT, *_OUTPUT, *_ENV, *_FILES]
