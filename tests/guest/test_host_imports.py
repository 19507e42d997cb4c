"""What a module may import, and what it cannot do with it (guest-abi.md, "Imports a module may use")."""

from __future__ import annotations

import contextlib
import json
import math
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_wasm.errors import GuestFault, ModuleError
from sentinel_wasm.guest.abi import ON_REQUEST_HEADERS
from sentinel_wasm.guest.instance import Instance

from . import wat
from .conftest import LIMIT_MS, Start
from .steady import STEADY
from .wat import ABSOLUTE, INPUT, MONOTONIC, OUT, PAGE, REALTIME, WASI, clock

pytestmark = pytest.mark.parallel

# Where a `HostCall`'s data lies in the guest: behind room for eight arguments.
DATA = INPUT + 64

SUCCESS, BADF, FAULT, INVAL = 0, 8, 21, 28  # WASI preview 1, errno
OUTSIDE = [PAGE - 3, PAGE, 2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1]  # no four bytes are at these

Log = list[dict[str, Any]]


@dataclass(frozen=True)
class Reply:
    """What an import returned (as the bytes it left), and the guest's first page afterwards."""

    returned: bytes
    memory: bytes

    @property
    def errno(self) -> int:
        return int.from_bytes(self.returned[:4], "little")

    def u32(self, address: int) -> int:
        return int.from_bytes(self.memory[address : address + 4], "little")


class HostCall:
    """A guest that calls one import, with arguments and data at DATA that each call chooses."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    def __call__(self, *arguments: int | float, data: bytes = b"") -> Reply:
        words = b"".join(
            struct.pack("<d", value) if isinstance(value, float) else struct.pack("<Q", value % 2**64)
            for value in arguments
        )
        page = self.instance.call(ON_REQUEST_HEADERS, words.ljust(DATA - INPUT, b"\0") + data, "id-1")
        assert page is not None
        memory = bytes(8) + page
        return Reply(memory[OUT : OUT + 8], memory)

    def ends(self, *arguments: int | float, data: bytes = b"") -> str:
        """The reason for which a call ends the guest."""
        with pytest.raises(GuestFault) as caught:
            self(*arguments, data=data)
        assert not self.instance.usable
        reason = str(caught.value)
        json.dumps(reason).encode()
        assert reason.endswith(" in on_request_headers")
        return reason.removesuffix(" in on_request_headers")


@pytest.fixture
def fd_write(start: Start) -> HostCall:
    return HostCall(start(wat.caller(f"{WASI}.fd_write", "i32 i32 i32 i32", "i32")))


@pytest.fixture
def sentinel_log(start: Start) -> HostCall:
    return HostCall(start(wat.caller("sentinel.log", "i32 i32 i32")))


@pytest.fixture
def abort(start: Start) -> HostCall:
    return HostCall(start(wat.caller("env.abort", "i32 i32 i32 i32")))


@pytest.fixture
def trace(start: Start) -> HostCall:
    return HostCall(start(wat.caller("env.trace", "i32 i32 f64 f64 f64 f64 f64")))


POLL_ONEOFF = wat.caller(f"{WASI}.poll_oneoff", "i32 i32 i32 i32", "i32")
PollFactory = Callable[[int], HostCall]


@pytest.fixture
def poll_within(start: Start) -> PollFactory:
    """poll_oneoff under a deadline of so many ms."""
    return lambda limit_ms: HostCall(start(POLL_ONEOFF, limit_ms))


@pytest.fixture
def poll_oneoff(start: Start) -> HostCall:
    return HostCall(start(POLL_ONEOFF))


def elapsed_ms(run: Callable[[], object]) -> float:
    begun = time.monotonic()
    run()
    return (time.monotonic() - begun) * 1000


def texts(log: Log, **fields: Any) -> list[str]:
    """The log's texts at this level and of this source."""
    return [entry["text"] for entry in log if "text" in entry and fields.items() <= entry.items()]


# sentinel.log


@pytest.mark.parametrize(
    ("level", "logged"),
    [(0, "debug"), (1, "debug"), (2, "info"), (3, "warning"), (4, "error"), (5, "error"), (-1, "error")],
)
def test_log_has_its_level(sentinel_log: HostCall, log: Log, level: int, logged: str) -> None:
    sentinel_log(level, DATA, 5, data=b"hello")
    assert texts(log, log_level=logged, source="log", correlation_id="id-1") == ["hello"]
    assert len(log) == 1


@pytest.mark.parametrize(("raw", "text"), [(b"n\xc3\xa9", "né"), (b"a\xffb", "a\ufffdb"), (b"\0", "\0")])
def test_log_takes_any_bytes(sentinel_log: HostCall, log: Log, raw: bytes, text: str) -> None:
    sentinel_log(2, DATA, len(raw), data=raw)
    assert texts(log) == [text]


@pytest.mark.parametrize(
    ("pointer", "length"),
    [(PAGE, 1), (PAGE - 4, 5), (0, PAGE + 1), (2**32 - 1, 2), (DATA, 2**32 - 1), (2**31, 2**31)],
)
def test_log_outside_the_memory_logs_nothing(
    sentinel_log: HostCall, log: Log, pointer: int, length: int
) -> None:
    sentinel_log(2, pointer, length)
    assert log == []


def test_log_at_the_end_of_the_memory_is_logged(sentinel_log: HostCall, log: Log) -> None:
    sentinel_log(2, PAGE - 1, 1)
    assert texts(log) == ["\0"]


# fd_write


def iovecs(*pieces: bytes) -> tuple[bytes, int]:
    """The pieces as data for DATA: iovecs, then what they point to."""
    at = DATA + 8 * len(pieces)
    heads, bodies = b"", b""
    for piece in pieces:
        heads += struct.pack("<II", at + len(bodies), len(piece))
        bodies += piece
    return heads + bodies, len(pieces)


WRITTEN = 600  # where fd_write leaves how much it wrote


@pytest.mark.parametrize(("descriptor", "level", "source"), [(1, "info", "stdout"), (2, "warning", "stderr")])
def test_streams_go_to_the_log_line_by_line(
    fd_write: HostCall, log: Log, descriptor: int, level: str, source: str
) -> None:
    data, count = iovecs(b"one\ntwo\n")
    reply = fd_write(descriptor, DATA, count, WRITTEN, data=data)
    assert (reply.errno, reply.u32(WRITTEN)) == (SUCCESS, 8)
    assert texts(log, log_level=level, source=source, correlation_id="id-1") == ["one", "two"]
    assert len(log) == 2


def test_line_of_several_pieces_is_one_line(fd_write: HostCall, log: Log) -> None:
    data, count = iovecs(b"a ", b"", "né".encode()[:2], "né".encode()[2:], b" b\nnext")
    reply = fd_write(1, DATA, count, WRITTEN, data=data)
    assert reply.u32(WRITTEN) == len(data) - 8 * count
    assert texts(log) == ["a né b", "next"]


def test_line_of_several_writes_is_one_line(start: Start, log: Log) -> None:
    # printf without a buffer: three writes to stdout and one to stderr between them.
    pieces = [(1, b"block"), (2, b"careful\n"), (1, b"ed "), (1, b"it\n")]
    fields, calls, at = "", "", 2048
    for descriptor, piece in pieces:
        fields += wat.data(at, struct.pack("<II", at + 8, len(piece)) + piece)
        calls += (
            f"(drop (call $fd_write (i32.const {descriptor}) (i32.const {at}) (i32.const 1) (i32.const 600)))"
        )
        at += 64
    imports = wat.imported(f"{WASI}.fd_write", "i32 i32 i32 i32", "i32")
    text = wat.module(fields, wat.hook(f"{calls} (i64.const 0)"), imports=imports)
    start(text).call(ON_REQUEST_HEADERS, b"{}", "id-1")
    assert texts(log, source="stdout") == ["blocked it"]
    assert texts(log, source="stderr") == ["careful"]


def test_output_of_a_call_that_traps_is_logged(start: Start, log: Log) -> None:
    imports = wat.imported("sentinel.log", "i32 i32 i32")
    body = "(call $log (i32.const 4) (i32.const 2048) (i32.const 7)) unreachable"
    instance = start(wat.module(wat.data(2048, b"I fail!"), wat.hook(body), imports=imports))
    with pytest.raises(GuestFault):
        instance.call(ON_REQUEST_HEADERS, b"{}", "id-1")
    assert texts(log, correlation_id="id-1") == ["I fail!"]


def test_empty_lines_are_left_out(fd_write: HostCall, log: Log) -> None:
    data, count = iovecs(b"\n\none\n \n\n")
    fd_write(1, DATA, count, WRITTEN, data=data)
    assert texts(log) == ["one"]


@pytest.mark.parametrize("descriptor", [0, 3, 4, 2**31, 2**32 - 1])
def test_no_other_descriptor_is_writable(fd_write: HostCall, log: Log, descriptor: int) -> None:
    data, count = iovecs(b"text\n")
    assert fd_write(descriptor, DATA, count, WRITTEN, data=data).errno == BADF
    assert log == []


@pytest.mark.parametrize("pointer", OUTSIDE)
@pytest.mark.parametrize("which", ["iovecs", "written", "text"])
def test_write_outside_the_memory_is_a_fault(fd_write: HostCall, which: str, pointer: int) -> None:
    places = {"iovecs": DATA, "written": WRITTEN, "text": DATA + 8, which: pointer}
    data = struct.pack("<II", places["text"], 4) + b"text"
    assert fd_write(1, places["iovecs"], 1, places["written"], data=data).errno == FAULT


@pytest.mark.parametrize("length", [PAGE, 2**31 - 1, 2**31, 2**32 - 1])
def test_write_longer_than_the_memory_is_a_fault(fd_write: HostCall, length: int) -> None:
    assert fd_write(1, DATA, 1, WRITTEN, data=struct.pack("<II", DATA, length)).errno == FAULT


def test_pieces_that_sum_up_past_32_bits_end_in_an_errno(start: Start) -> None:
    # 1,024 pieces of 8 MiB: 8 GiB, more than can be told in `written`.
    imports = wat.imported(f"{WASI}.fd_write", "i32 i32 i32 i32", "i32")
    write = "(call $fd_write (i32.const 1) (i32.const 2048) (i32.const 1024) (i32.const 600))"
    body = f"(i32.store (i32.const 512) {write}) {wat.returns(512, 4)}"
    pieces = wat.data(2048, struct.pack("<II", 65536, 8 << 20) * 1024)
    instance = start(wat.module(pieces, wat.hook(body), imports=imports, pages=200))
    assert instance.call(ON_REQUEST_HEADERS, b"{}", "") not in (None, struct.pack("<I", SUCCESS))


@pytest.mark.parametrize("count", [0, 1025, 8000, 8192, 2**16, 2**29, 2**31, 2**32 - 1])
def test_huge_counts_of_pieces_are_survived(fd_write: HostCall, count: int) -> None:
    reply = fd_write(1, DATA, count, WRITTEN)
    assert reply.errno in (SUCCESS, FAULT, INVAL)
    assert fd_write(1, DATA, 0, WRITTEN).errno == SUCCESS


WORDS = st.sampled_from([0, 1, 2, 3, 8, DATA, PAGE - 8, PAGE - 1, PAGE, 2**31, 2**32 - 1]) | st.integers(
    0, 2**32 - 1
)


@STEADY
@given(arguments=st.tuples(WORDS, WORDS, WORDS, WORDS), data=st.lists(WORDS, max_size=16))
def test_no_arguments_of_fd_write_cost_the_instance(
    fd_write: HostCall, arguments: tuple[int, ...], data: list[int]
) -> None:
    reply = fd_write(*arguments, data=struct.pack(f"<{len(data)}I", *data))
    assert reply.errno in (SUCCESS, BADF, FAULT, INVAL)


# The limits of output


def left_out(log: Log) -> tuple[int, int]:
    """(lines, bytes) that the log says were left out."""
    said = [entry for entry in log if entry["event"] == "guest output left out"]
    return sum(entry["lines"] for entry in said), sum(entry["bytes"] for entry in said)


def guest_lines(log: Log) -> list[str]:
    return [entry["text"] for entry in log if "source" in entry]


@pytest.mark.parametrize("length", [8000, 8192, 8193, 20_000, 60_000])
def test_one_call_logs_8_kib_and_counts_the_rest(sentinel_log: HostCall, log: Log, length: int) -> None:
    sentinel_log(2, 0, length)
    kept = sum(map(len, guest_lines(log)))
    assert 8192 - 16 <= kept <= 8192 or kept == length
    assert kept + left_out(log)[1] == length


def test_next_call_has_room_again(sentinel_log: HostCall, log: Log) -> None:
    sentinel_log(2, 0, 60_000)
    log.clear()
    sentinel_log(2, DATA, 5, data=b"again")
    assert texts(log) == ["again"]


def test_many_pieces_past_8_kib_are_counted(fd_write: HostCall, log: Log) -> None:
    # 1,000 pieces of 30 bytes, all of them at one place.
    data = struct.pack("<II", DATA + 8000, 30) * 1000 + b"x" * 30
    assert fd_write(1, DATA, 1000, WRITTEN, data=data).u32(WRITTEN) == 30_000
    (line,) = guest_lines(log)
    assert set(line) == {"x"}
    assert len(line) <= 8192
    assert len(line) + left_out(log)[1] == 30_000


def write_lines(fd_write: HostCall, count: int) -> None:
    data, pieces = iovecs(b"\n".join(b"%d" % number for number in range(count)))
    fd_write(1, DATA, pieces, WRITTEN, data=data)


def test_no_more_than_100_lines_are_logged_at_once(fd_write: HostCall, log: Log) -> None:
    write_lines(fd_write, 150)
    assert guest_lines(log) == [str(number) for number in range(100)]


def test_lines_left_out_are_told_of_when_there_is_room_again(fd_write: HostCall, log: Log) -> None:
    write_lines(fd_write, 150)
    sent = 150
    give_up = time.monotonic() + 10
    while left_out(log) == (0, 0) and time.monotonic() < give_up:
        write_lines(fd_write, 1)
        sent += 1
    lines, size = left_out(log)
    assert (len(guest_lines(log)) + lines, size) == (sent, 0)
    assert lines >= 50


def test_lines_of_a_second_are_limited_over_many_calls(fd_write: HostCall, log: Log) -> None:
    begun = time.monotonic()
    for _ in range(300):
        write_lines(fd_write, 1)
    seconds = int(time.monotonic() - begun) + 2
    assert 100 <= len(guest_lines(log)) <= 100 * seconds


# proc_exit


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_exit_is_a_module_error_with_its_code(start: Start, code: int) -> None:
    reason = HostCall(start(wat.caller(f"{WASI}.proc_exit", "i32"))).ends(code)
    assert reason == f"the module called proc_exit({code})"


# poll_oneoff

EVENTS, N_EVENTS = 16_384, 700
MS = 1_000_000
CLOCK, FD_READ, FD_WRITE = 0, 1, 2


def descriptor(kind: int, number: int, *, userdata: int = 8) -> bytes:
    return struct.pack("<QB7xI28x", userdata, kind, number)


def poll(call: HostCall, *subscriptions: bytes) -> Reply:
    return call(DATA, EVENTS, len(subscriptions), N_EVENTS, data=b"".join(subscriptions))


def ready(reply: Reply) -> list[tuple[int, int, int]]:
    """(userdata, errno, kind) of each event."""
    assert reply.errno == SUCCESS
    found = []
    for index in range(reply.u32(N_EVENTS)):
        at = EVENTS + 32 * index
        found.append(struct.unpack("<QHB", reply.memory[at : at + 11]))
    return found


@pytest.mark.parametrize("which", [REALTIME, MONOTONIC])
def test_short_sleep_works(poll_oneoff: HostCall, which: int) -> None:
    slept = elapsed_ms(lambda: ready(poll(poll_oneoff, clock(15 * MS, which=which))))
    assert slept >= 15


def test_sleeper_is_told_which_clock_woke_it(poll_oneoff: HostCall) -> None:
    assert ready(poll(poll_oneoff, clock(1 * MS, userdata=2**64 - 1))) == [(2**64 - 1, SUCCESS, CLOCK)]


def test_sleep_of_no_time_returns_at_once(poll_oneoff: HostCall) -> None:
    assert ready(poll(poll_oneoff, clock(0))) == [(7, SUCCESS, CLOCK)]


SLEEPS = {
    "3 s": clock(3000 * MS),
    "3 s of the wall clock": clock(3000 * MS, which=REALTIME),
    "for ever": clock(2**64 - 1),
    "for half of ever": clock(2**63 - 1),
    "until the end of time": clock(2**64 - 1, flags=ABSOLUTE),
    "until the end of the wall clock": clock(2**64 - 1, which=REALTIME, flags=ABSOLUTE),
}


@pytest.mark.parametrize("sleep", SLEEPS)
def test_long_sleep_ends_at_the_deadline(poll_within: PollFactory, sleep: str) -> None:
    def oversleep() -> None:
        reason = poll_within(LIMIT_MS).ends(DATA, EVENTS, 1, N_EVENTS, data=SLEEPS[sleep])
        assert reason == "deadline of 40 ms exceeded"

    # The best of three: the machine has other work to do.
    times = [elapsed_ms(oversleep) for _ in range(3)]
    assert LIMIT_MS <= min(times) < 200


def test_several_sleeps_share_one_deadline(start: Start) -> None:
    imports = wat.imported(f"{WASI}.poll_oneoff", "i32 i32 i32 i32", "i32")
    body = f"""(loop $again
        (drop (call $poll_oneoff (i32.const 2048) (i32.const {EVENTS}) (i32.const 1) (i32.const {N_EVENTS})))
        (br $again)) unreachable"""
    text = wat.module(wat.data(2048, clock(5 * MS)), wat.hook(body), imports=imports)

    def oversleep() -> None:
        with pytest.raises(GuestFault, match="deadline of 40 ms exceeded"):
            start(text, LIMIT_MS).call(ON_REQUEST_HEADERS, b"{}", "")

    assert min(elapsed_ms(oversleep) for _ in range(3)) < 200


def test_the_next_call_has_its_own_deadline(poll_within: PollFactory) -> None:
    call = poll_within(400)
    for _ in range(3):
        assert ready(poll(call, clock(150 * MS))) == [(7, SUCCESS, CLOCK)]


def test_the_earliest_of_several_clocks_wakes(poll_oneoff: HostCall) -> None:
    events = ready(poll(poll_oneoff, clock(5000 * MS, userdata=1), clock(2 * MS, userdata=2)))
    assert events == [(2, SUCCESS, CLOCK)]


@pytest.mark.parametrize(("which", "now"), [(REALTIME, time.time_ns), (MONOTONIC, time.monotonic_ns)])
def test_time_that_is_past_wakes_at_once(poll_oneoff: HostCall, which: int, now: Callable[[], int]) -> None:
    for past_ns in (now() - 1000 * MS, 1):
        events = ready(poll(poll_oneoff, clock(past_ns, which=which, flags=ABSOLUTE)))
        assert events == [(7, SUCCESS, CLOCK)]


SLEEP_UNTIL = f"""
    (drop (call $clock_time_get (local.get $i) (i64.const 1) (i32.const 256)))
    (i32.store (i32.const 2064) (local.get $i))
    (i64.store (i32.const 2072) (i64.add (i64.load (i32.const 256)) (i64.const {20 * MS})))
    (drop (call $poll_oneoff (i32.const 2048) (i32.const {EVENTS}) (i32.const 1) (i32.const {N_EVENTS})))
    (drop (call $clock_time_get (local.get $i) (i64.const 1) (i32.const 264)))
    {wat.returns(256, 16)}"""


@pytest.mark.parametrize("which", [REALTIME, MONOTONIC])
def test_guest_sleeps_until_a_time_of_its_own_clock(start: Start, which: int) -> None:
    # What clock_nanosleep with TIMER_ABSTIME does: the clock read, something added, slept until then.
    imports = wat.imported(f"{WASI}.clock_time_get", "i32 i64 i32", "i32") + wat.imported(
        f"{WASI}.poll_oneoff", "i32 i32 i32 i32", "i32"
    )
    body = f"(local.set $i (i32.const {which})) {SLEEP_UNTIL}"
    text = wat.module(wat.data(2048, clock(0, flags=ABSOLUTE)), wat.hook(body), imports=imports)
    result = start(text).call(ON_REQUEST_HEADERS, b"{}", "")
    assert result is not None
    begun, woken = struct.unpack("<QQ", result)
    assert woken - begun >= 20 * MS


def test_clock_that_is_not_there_yet_is_not_ready(poll_oneoff: HostCall) -> None:
    # The first clock wakes the guest after 20 ms; the second's time, 15 ms later, has not come then.
    until = time.time_ns() + 35 * MS
    first = clock(20 * MS, userdata=1)
    events = ready(poll(poll_oneoff, first, clock(until, which=REALTIME, flags=ABSOLUTE, userdata=2)))
    assert [userdata for userdata, _, _ in events] == [1] or time.time_ns() >= until


@pytest.mark.parametrize(
    ("subscription", "expected"),
    [
        (descriptor(FD_READ, 0), (8, BADF, FD_READ)),
        (descriptor(FD_READ, 3), (8, BADF, FD_READ)),
        (descriptor(FD_WRITE, 1), (8, SUCCESS, FD_WRITE)),
        (descriptor(FD_WRITE, 2), (8, SUCCESS, FD_WRITE)),
        (descriptor(FD_WRITE, 3), (8, BADF, FD_WRITE)),
        (clock(3000 * MS, which=2), (7, INVAL, CLOCK)),
        (clock(3000 * MS, which=2**32 - 1), (7, INVAL, CLOCK)),
    ],
)
def test_what_cannot_be_waited_for_is_ready_at_once(
    poll_oneoff: HostCall, subscription: bytes, expected: tuple[int, int, int]
) -> None:
    assert ready(poll(poll_oneoff, clock(3000 * MS), subscription)) == [expected]


def test_zero_subscriptions_are_invalid(poll_oneoff: HostCall) -> None:
    assert poll_oneoff(DATA, EVENTS, 0, N_EVENTS).errno == INVAL


@pytest.mark.parametrize("count", [1025, 2**16, 2**27, 2**31, 2**32 - 1])
def test_huge_counts_of_subscriptions_are_refused(poll_oneoff: HostCall, count: int) -> None:
    assert poll_oneoff(DATA, EVENTS, count, N_EVENTS).errno in (INVAL, FAULT)


@pytest.mark.parametrize("pointer", OUTSIDE)
@pytest.mark.parametrize("which", ["subscriptions", "events", "n_events"])
def test_poll_outside_the_memory_is_a_fault(poll_oneoff: HostCall, which: str, pointer: int) -> None:
    places = {"subscriptions": DATA, "events": EVENTS, "n_events": N_EVENTS, which: pointer}
    reply = poll_oneoff(places["subscriptions"], places["events"], 1, places["n_events"], data=clock(0))
    assert reply.errno == FAULT


@STEADY
@given(arguments=st.tuples(WORDS, WORDS, st.integers(0, 3), WORDS), data=st.binary(max_size=144))
def test_no_arguments_of_poll_oneoff_crash(
    poll_within: PollFactory, arguments: tuple[int, ...], data: bytes
) -> None:
    # A deadline of no time: what would sleep ends the guest, and all else is an errno. On a busy machine it
    # can pass before the module is asked, too.
    with contextlib.suppress(ModuleError):
        assert poll_within(1)(*arguments, data=data).errno in (SUCCESS, INVAL, FAULT)


# random_get


@pytest.fixture
def random_get(start: Start) -> HostCall:
    return HostCall(start(wat.caller(f"{WASI}.random_get", "i32 i32", "i32")))


def test_random_bytes_fill_what_was_asked_and_no_more(random_get: HostCall) -> None:
    reply = random_get(20_000, 1000)
    assert reply.errno == SUCCESS
    assert len(set(reply.memory[20_000:21_000])) > 100
    assert set(reply.memory[21_000:22_000] + reply.memory[19_000:20_000]) == {0}


def test_random_bytes_differ(random_get: HostCall) -> None:
    draws = {random_get(20_000, 16).memory[20_000:20_016] for _ in range(20)}
    assert len(draws) == 20


def test_random_bytes_differ_between_instances(start: Start) -> None:
    text = wat.caller(f"{WASI}.random_get", "i32 i32", "i32")
    assert len({HostCall(start(text))(20_000, 16).memory[20_000:20_016] for _ in range(5)}) == 5


@pytest.mark.parametrize("length", [1, 255, 256, 257, 40_000])
def test_random_bytes_reach_the_last_byte(random_get: HostCall, length: int) -> None:
    last = {random_get(20_000, length).memory[20_000 + length - 1] for _ in range(20)}
    assert len(last) > 1


@pytest.mark.parametrize("length", [0, 1, 256])
def test_random_bytes_up_to_the_end_of_the_memory(random_get: HostCall, length: int) -> None:
    assert random_get(PAGE - length, length).errno == SUCCESS


@pytest.mark.parametrize(
    ("pointer", "length"),
    [(PAGE, 1), (PAGE - 255, 256), (0, PAGE + 1), (2**32 - 1, 1), (1, 2**32 - 1), (2**31, 2**31), (8, 2**31)],
)
def test_random_bytes_outside_the_memory_are_a_fault(random_get: HostCall, pointer: int, length: int) -> None:
    reply = random_get(pointer, length)
    assert reply.errno == FAULT
    assert set(reply.memory[20_000:]) == {0}


def test_56_mib_of_random_bytes_end_in_time(start: Start) -> None:
    text = wat.caller(f"{WASI}.random_get", "i32 i32", "i32", pages=1000)

    def draw() -> None:
        call = HostCall(start(text, LIMIT_MS))
        try:
            outcome = str(call(PAGE, 56 << 20).errno)
        except GuestFault as error:
            outcome = str(error)
        assert outcome in ("0", "deadline of 40 ms exceeded in on_request_headers")

    assert min(elapsed_ms(draw) for _ in range(3)) < 200


# env: AssemblyScript's


def string(text: str) -> bytes:
    """AssemblyScript's string: its length in bytes, then UTF-16."""
    raw = text.encode("utf-16-le", "surrogatepass")
    return struct.pack("<I", len(raw)) + raw


def strings(*values: str) -> tuple[bytes, list[int]]:
    """Several strings as data for DATA, and their addresses."""
    data, places = b"", []
    for value in values:
        places.append(DATA + len(data) + 4)
        data += string(value)
    return data, places


def test_abort_tells_message_file_line_and_column(abort: HostCall) -> None:
    data, (message, file) = strings("Index out of range", "~lib/array.ts")
    assert abort.ends(message, file, 114, 42, data=data) == "abort: Index out of range (~lib/array.ts:114:42)"


def test_abort_with_text_of_any_script(abort: HostCall) -> None:
    data, (message, file) = strings("ключ 🔑", "索引.ts")
    assert abort.ends(message, file, 1, 2, data=data) == "abort: ключ 🔑 (索引.ts:1:2)"


def test_abort_with_half_a_surrogate_pair_can_still_be_told(abort: HostCall) -> None:
    data, (message, file) = strings("a\ud83d", "b.ts")
    assert abort.ends(message, file, 1, 2, data=data).startswith("abort: a")


def test_abort_without_strings_is_told(abort: HostCall) -> None:
    assert abort.ends(0, 0, 3, 4).startswith("abort: ")


@pytest.mark.parametrize("pointer", [1, 3, PAGE - 1, PAGE, PAGE + 4, 2**31, 2**32 - 1])
def test_abort_with_a_bad_pointer_is_told(abort: HostCall, pointer: int) -> None:
    assert abort.ends(pointer, pointer, 3, 4).startswith("abort: ")


@pytest.mark.parametrize("length", [PAGE, 2**31, 2**32 - 1])
def test_abort_with_a_bad_length_is_told(abort: HostCall, length: int) -> None:
    data = struct.pack("<I", length) + "text".encode("utf-16-le")
    assert len(abort.ends(DATA + 4, DATA + 4, 3, 4, data=data)) < 2000


def test_long_abort_is_cut(abort: HostCall) -> None:
    data, (message, file) = strings("m" * 10_000, "f" * 10_000)
    reason = abort.ends(message, file, 1, 2, data=data)
    assert "mmmm" in reason
    assert len(reason) < 2000


@STEADY
@given(arguments=st.tuples(WORDS, WORDS, WORDS, WORDS), data=st.binary(max_size=40))
def test_no_arguments_of_abort_crash(start: Start, arguments: tuple[int, ...], data: bytes) -> None:
    instance = start(wat.caller("env.abort", "i32 i32 i32 i32"))
    assert HostCall(instance).ends(*arguments, data=data).startswith("abort: ")


def test_seed_is_a_number_that_differs(start: Start) -> None:
    seed = HostCall(start(wat.caller("env.seed", "", "f64")))
    drawn = [struct.unpack("<d", seed().returned)[0] for _ in range(20)]
    assert all(math.isfinite(number) for number in drawn)
    assert len(set(drawn)) == 20


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "took"), (1, "took 1.5"), (3, "took 1.5 -2 1e+100"), (5, "took 1.5 -2 1e+100 0 3")],
)
def test_trace_logs_its_text_and_as_many_numbers_as_it_says(
    trace: HostCall, log: Log, count: int, text: str
) -> None:
    data, (message,) = strings("took")
    trace(message, count, 1.5, -2.0, 1e100, 0.0, 3.0, data=data)
    assert texts(log, log_level="debug", correlation_id="id-1") == [text]


@pytest.mark.parametrize("count", [6, 2**31, -1])
def test_trace_with_a_bad_count_is_survived(trace: HostCall, log: Log, count: int) -> None:
    data, (message,) = strings("took")
    trace(message, count, *[1.0] * 5, data=data)
    assert len(log) == 1


@pytest.mark.parametrize("pointer", [0, 3, PAGE, 2**32 - 1])
def test_trace_with_a_bad_pointer_is_survived(trace: HostCall, pointer: int) -> None:
    trace(pointer, 0, *[0.0] * 5)
    assert trace.instance.usable


# The sandbox


def test_wall_clock_is_the_hosts(start: Start) -> None:
    call = HostCall(start(wat.caller(f"{WASI}.clock_time_get", "i32 i64 i32", "i32")))
    before = time.time_ns()
    reply = call(REALTIME, 1, 600)
    (now,) = struct.unpack("<Q", reply.memory[600:608])
    assert before <= now <= time.time_ns()


def test_monotonic_clock_goes_on(start: Start) -> None:
    call = HostCall(start(wat.caller(f"{WASI}.clock_time_get", "i32 i64 i32", "i32")))
    times = [struct.unpack("<Q", call(MONOTONIC, 1, 600).memory[600:608])[0] for _ in range(5)]
    assert times == sorted(set(times))


@pytest.mark.parametrize(("which", "pointer"), [(2, 600), (2**32 - 1, 600), (0, PAGE - 7), (1, 2**32 - 1)])
def test_clock_that_is_not_there_or_cannot_be_told_costs_nothing(
    start: Start, which: int, pointer: int
) -> None:
    call = HostCall(start(wat.caller(f"{WASI}.clock_time_get", "i32 i64 i32", "i32")))
    assert call(which, 1, pointer).errno in (INVAL, FAULT)
    assert call.instance.usable


@pytest.mark.parametrize("name", ["args_sizes_get", "environ_sizes_get"])
def test_there_are_no_arguments_and_no_environment(
    start: Start, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the agent")
    reply = HostCall(start(wat.caller(f"{WASI}.{name}", "i32 i32", "i32")))(600, 608)
    assert (reply.errno, reply.u32(600), reply.u32(608)) == (SUCCESS, 0, 0)


@pytest.mark.parametrize("number", [3, 4, 5])
def test_there_are_no_directories(start: Start, number: int) -> None:
    call = HostCall(start(wat.caller(f"{WASI}.fd_prestat_get", "i32 i32", "i32")))
    assert call(number, 600).errno == BADF


@pytest.mark.parametrize("path", [b"/etc/passwd", b".", b"../../etc/passwd"])
def test_no_file_can_be_opened(start: Start, path: bytes) -> None:
    parameters = "i32 i32 i32 i32 i32 i64 i64 i32 i32"
    # Nine arguments: the path lies behind them.
    call = HostCall(start(wat.caller(f"{WASI}.path_open", parameters, "i32")))
    reply = call(3, 0, DATA + 8, len(path), 0, 2, 2, 0, 600)
    assert reply.errno == BADF


def test_standard_input_is_empty(start: Start) -> None:
    call = HostCall(start(wat.caller(f"{WASI}.fd_read", "i32 i32 i32 i32", "i32")))
    reply = call(0, DATA, 1, 600, data=struct.pack("<II", 20_000, 100))
    assert reply.u32(600) == 0
    assert set(reply.memory[20_000:20_100]) == {0}


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_there_are_no_sockets(start: Start, number: int) -> None:
    call = HostCall(start(wat.caller(f"{WASI}.sock_accept", "i32 i32 i32", "i32")))
    assert call(number, 0, 600).errno != SUCCESS
