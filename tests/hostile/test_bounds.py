"""What the agent itself does and keeps for a module is bounded, in time and in memory."""

from __future__ import annotations

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from sentinel_wasm.client import request_headers
from sentinel_wasm.protocol.events import EventKind

from ..conftest import BuildWat, RunningAgent, StartAgent
from ..guest import wat
from ..guest.wat import WASI
from ..soak.footprint import Footprint, footprint
from . import agents, places
from .agents import ATTEMPTS, DEADLINE, TIMEOUT_MS, Watched
from .case import FAULTY_URI, Runs, module
from .faults import SPIN
from .hogs import FILL_ALL, LATE, MOST_BYTES, TAKE_ALL
from .hostcalls import CLOCK, POLL
from .places import reconfigured
from .test_hostile import suffer
from .test_state import FAIL_MODES, TRAPPED, end, get

MAX_V1 = 10 * 1024 * 1024
TRACE = wat.imported("env.trace", "i32 i32 f64 f64 f64 f64 f64")
TRACING = "(call $trace (i32.const 0) (i32.const 5) " + "(f64.const 0) " * 5 + ")"
OPEN = wat.imported(f"{WASI}.path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32", "i32")
OPENING = (
    f"(drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 32768) (i32.const {MOST_BYTES})"
    " (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 16)))"
)
POLLING = "(drop (call $poll_oneoff (i32.const 32768) (i32.const 98304) (i32.const 1000) (i32.const 16)))"

# Between two host calls in a row nothing looks at the clock but the host calls.
IN_A_ROW = [
    Runs(
        "asks for a path of 60 MB, 100 times",
        module(
            fault=f"{TAKE_ALL} (memory.fill (i32.const 32768) (i32.const 97) (i32.const {MOST_BYTES}))"
            + OPENING * 100,
            imports=OPEN,
        ),
        # There is no directory, whatever the path says: no time is spent on it.
        reason=None,
        survives=True,
    ),
    Runs(
        "polls 1000 subscriptions that are ready, 200,000 times",
        module(fault=POLLING * 200_000, imports=POLL, pages=3),
        LATE,
        times_out=True,
    ),
]


@pytest.mark.parametrize("case", IN_A_ROW, ids=[case.name for case in IN_A_ROW])
def test_host_calls_in_a_row_end_in_time(start_agent: StartAgent, build_wat: BuildWat, case: Runs) -> None:
    agent = agents.start(start_agent, build_wat(case.text), fail_open=False)
    watched = Watched(agent, fail_open=False)
    took = []
    with agent.v2() as client:
        for _ in range(ATTEMPTS):
            answer, took_ms = watched.faulty(client, case)
            watched.check_faulty(case, answer)
            took.append(took_ms)
            watched.good(client)
    assert min(took) < 2 * TIMEOUT_MS, took
    watched.stop()


# The clock


def test_long_deadline_is_as_exact_as_a_short_one(start_agent: StartAgent, build_wat: BuildWat) -> None:
    """500 ticks of 2 ms, each of which is a little late, must not add up. The best of a few."""
    agent = start_agent(
        build_wat(module(fault=SPIN)), "--pool-size", "1", "--timeout-ms", "1000", "--dispatch", "inline"
    )
    watched = Watched(agent, fail_open=False)
    took: list[float] = []
    with agent.v2() as client:
        while len(took) < 8 and min(took, default=TIMEOUT_MS * 10) > 1025:
            took.append(watched.faulty_uri(client, FAULTY_URI)[1])
            watched.good(client)
            watched.calls = 0
    assert 999 <= min(took) < 1025, took


def test_deadline_holds_though_the_agent_is_held_up(start_agent: StartAgent, build_wat: BuildWat) -> None:
    """Ticks that were due while its process stood still come at once. The best of a few."""
    agent = start_agent(
        build_wat(module(fault=SPIN)), "--pool-size", "1", "--timeout-ms", "300", "--dispatch", "inline"
    )
    watched = Watched(agent, fail_open=False)
    took: list[float] = []
    with agent.v2() as client, ThreadPoolExecutor() as pool:
        while len(took) < 8 and min(took, default=TIMEOUT_MS * 10) > 320:
            running = pool.submit(watched.faulty_uri, client, FAULTY_URI)
            # 20 times 5 ms: with as many ticks less than time, it would take 400 ms.
            for _ in range(20):
                os.kill(agent.process.pid, signal.SIGSTOP)
                time.sleep(0.005)
                os.kill(agent.process.pid, signal.SIGCONT)
                time.sleep(0.005)
            took.append(running.result()[1])
            watched.good(client)
            watched.calls = 0
    assert 299 <= min(took) < 320, took


@pytest.mark.parametrize("place", ["input", "result"])
def test_result_counts_though_dealloc_loops_on_a_worker(
    start_agent: StartAgent, build_wat: BuildWat, place: str
) -> None:
    name = f"loop in dealloc of the {place}"
    (case,) = (case for case in places.RUNS if case.name == name)
    threads = replace(case, options=("--dispatch", "threads"))
    for fail_open in (False, True):
        suffer(start_agent, build_wat(case.text), threads, fail_open)


CASES = [
    Runs("traces 300 times", module(fault=TRACING * 300, imports=TRACE), None, survives=True),
    Runs(
        "traces for ever",
        module(fault=f"(loop $trace_on {TRACING} (br $trace_on))", imports=TRACE),
        LATE,
        times_out=True,
    ),
    Runs(
        "loop in on_configure, later",
        module(reconfigured(SPIN)),
        f"{DEADLINE}( in on_configure)?$",
        survives=None,
        times_out=True,
        event=EventKind.CONFIGURE,
    ),
    Runs(
        "dealloc traps after a later on_configure",
        module(reconfigured("")).replace(
            '(export "dealloc") (param $p i32) (param $n i32)',
            '(export "dealloc") (param $p i32) (param $n i32) '
            "(if (i32.eq (local.get $n) (i32.const 18)) (then unreachable))",
        ),
        "trap: unreachable in dealloc for on_configure",
        survives=None,
        event=EventKind.CONFIGURE,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_agent_answers_in_time_and_is_well(start_agent: StartAgent, build_wat: BuildWat, case: Runs) -> None:
    suffer(start_agent, build_wat(case.text), case, fail_open=False)


def test_traces_at_start_do_no_harm(start_agent: StartAgent, build_wat: BuildWat) -> None:
    text = module(f'(func (export "_initialize") {TRACING * 300})', imports=TRACE)
    watched = Watched(agents.start(start_agent, build_wat(text), fail_open=False), fail_open=False)
    with watched.agent.v2() as client:
        watched.good(client)
    watched.stop()


# Results


def _says(result: bytes) -> str:
    """A module that gives this result to a faulty event."""
    at = wat.PAGE
    return module(
        wat.data(at, result),
        fault=f"(return {wat.returns(at, len(result))})",
        pages=2 + len(result) // wat.PAGE,
    )


def _headers(field: str, text: str) -> bytes:
    return f'{{"decision":"allow","{field}":{text}}}'.encode()


LARGE_ANSWERS = {
    # 56 kB would be 100 MB of answer: the name stands in each of its operations.
    "2000 values of one long name": _headers(
        "append_request_headers", '{"' + "x" * 50_000 + '":[' + ",".join(['""'] * 2000) + "]}"
    ),
    "260,000 removals": _headers("remove_request_headers", "[" + ",".join(['"a"'] * 260_000) + "]"),
    "90,000 names": _headers(
        "add_response_headers", "{" + ",".join(f'"{number:x}":""' for number in range(90_000)) + "}"
    ),
    "340,000 tags": _headers("tags", "[" + ",".join(['""'] * 340_000) + "]"),
    "100,000 numbers to write as text": _headers(
        "routing_metadata", "{" + ",".join(f'"{number:x}":1' for number in range(100_000)) + "}"
    ),
}


@pytest.mark.parametrize("name", LARGE_ANSWERS)
def test_large_result_is_answered_in_time_and_fits_a_frame(
    start_agent: StartAgent, build_wat: BuildWat, name: str
) -> None:
    """By what it says or by the fail-open rule, but within the deadline."""
    text = _says(LARGE_ANSWERS[name])
    agent = agents.start(start_agent, build_wat(text), fail_open=False)
    took = [large_answer_ms(agent) for _ in range(ATTEMPTS)]
    assert min(took) < TIMEOUT_MS, took
    Watched(agent, fail_open=False).stop()


def large_answer_ms(agent: RunningAgent) -> float:
    with agent.v2() as client:
        began = time.monotonic()
        client.send_event(EventKind.REQUEST_HEADERS, request_headers("large", "POST"))
        raw = client.receive()
        took_ms = (time.monotonic() - began) * 1000
        assert len(raw) < MAX_V1
        answer = client.ask(EventKind.REQUEST_HEADERS, request_headers("good"))
        agents.check_good(answer, None)
    return took_ms


def test_answers_that_are_kept_have_room_for_few_large_ones(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    """600 results of 4 kB, all different, whose answers have 1 MB each."""
    name = "x" * 1800
    result = _headers("append_request_headers", '{"' + name + '":[' + ",".join(['""'] * 600) + "]}")
    number_at = wat.PAGE + result.index(b"xxxx")
    letters = "".join(
        f"""(i32.store8 (i32.const {number_at + place}) (i32.add (i32.const 97)
            (i32.and (i32.const 15) (i32.shr_u (local.get $i) (i32.const {4 * place})))))"""
        for place in range(4)
    )
    text = module(
        wat.data(wat.PAGE, result),
        fault=f"""(i32.store (i32.const 512) (i32.add (i32.load (i32.const 512)) (i32.const 1)))
            (local.set $i (i32.load (i32.const 512))) {letters}
            (return {wat.returns(wat.PAGE, len(result))})""",
        pages=2,
    )
    agent = start_agent(build_wat(text), "--pool-size", "1")
    with agent.v2() as client:
        for number in range(600):
            client.send_event(EventKind.REQUEST_HEADERS, request_headers(f"large-{number}", "POST"))
            client.receive()
            if number == 20:
                before = agent.rss_mib()
        assert agent.rss_mib() - before < 64


# Tables


def test_tables_count_as_memory(start_agent: StartAgent, build_wat: BuildWat) -> None:
    """90 tables of 8 MB: none is over a limit, and together they are ten times --memory-limit.

    They are refused, or what they take is bounded.
    """
    tables = "".join(f"(table $t{number} 0 funcref)" for number in range(90))
    grow = "".join(
        f"(drop (table.grow $t{number} (ref.func $typed) (i32.const 1000000)))" for number in range(90)
    )
    text = module(tables, "(elem declare func $typed)", fault=grow)
    try:
        agent = start_agent(build_wat(text), "--pool-size", "1")
    except AssertionError as refused:
        said = str(refused)
    else:
        said = ""
    if said:
        assert re.search(r"ended with 1: sentinel-wasm-agent: [^\n]*tables", said)
        return
    before = agent.rss_mib()
    with agent.v2() as client:
        client.ask(EventKind.REQUEST_HEADERS, request_headers("faulty", "POST"))
        assert agent.rss_mib() - before < 128


# Starting again


def _starts_slowly(ms: int) -> str:
    """A module whose start function takes so long by the clock, and whose hook traps."""
    now = "(drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 304)))"
    slow = f"""(func $slow (local $end i64) {now}
        (local.set $end (i64.add (i64.load (i32.const 304)) (i64.const {ms * 1_000_000})))
        (loop $wait {now} (br_if $wait (i64.lt_u (i64.load (i32.const 304)) (local.get $end)))))
        (start $slow)"""
    return module(slow, fault="unreachable", imports=CLOCK)


@pytest.mark.parametrize("ms", [600, 2000])
def test_slow_start_of_the_next_instance_makes_no_event_late(
    start_agent: StartAgent, build_wat: BuildWat, ms: int
) -> None:
    """While it starts, events are answered in time by the fail-open rule; then they are answered well."""
    agent = agents.start(start_agent, build_wat(_starts_slowly(ms)), fail_open=False)
    took = []
    with agent.v2() as client:
        agents.check_good(client.ask(EventKind.REQUEST_HEADERS, request_headers("first")), 0)
        client.ask(EventKind.REQUEST_HEADERS, request_headers("faulty", "POST"))
        end_s = time.monotonic() + 10
        while True:
            began = time.monotonic()
            answer = client.ask(EventKind.REQUEST_HEADERS, request_headers("again"))
            took.append((time.monotonic() - began) * 1000)
            if "wasm-error" not in answer["audit"]["tags"]:
                break
            assert time.monotonic() < end_s, answer
    agents.check_good(answer, 0)
    # Far from any of the starts' times: a machine under load is late for its own reasons.
    assert max(took) < 2 * TIMEOUT_MS, took


# Instances that end


@FAIL_MODES
def test_memory_of_failed_instances_is_given_back(
    start_agent: StartAgent, build_wat: BuildWat, fail_open: bool
) -> None:
    """25 instances that fill 60 MiB each, and trap; file descriptors and threads do not gather either."""
    text = module(fault=f"{TAKE_ALL} {FILL_ALL} unreachable")
    agent = start_agent(build_wat(text), "--pool-size", "1", *(("--fail-open",) if fail_open else ()))
    watched = Watched(agent, fail_open=fail_open)
    held: list[Footprint] = []
    with agent.v2() as client:
        for number in range(25):
            answer, _ = watched.faulty_uri(client, FAULTY_URI)
            agents.check_failure(answer, TRAPPED, fail_open=fail_open)
            assert agents.check_good(get(client, number), 0) == 1
            held.append(footprint(agent))
    rss_mib = [one.rss_mib for one in held]
    assert min(rss_mib[-3:]) - max(rss_mib[:3]) < 8, rss_mib
    assert held[-1] == replace(held[2], rss_mib=rss_mib[-1])
    end(agent, fail_open=fail_open)


@FAIL_MODES
def test_client_that_leaves_while_the_module_loops(
    start_agent: StartAgent, build_wat: BuildWat, fail_open: bool
) -> None:
    agent = agents.start(start_agent, build_wat(module(fault=SPIN)), fail_open=fail_open)
    for number in range(5):
        with agent.v2() as leaving:
            agents.check_good(get(leaving, number), None)
            leaving.send_event(EventKind.REQUEST_HEADERS, request_headers("left", "POST"))
            time.sleep(0.02)
        # Room for a wait behind the loop: this event's own time is the same --timeout-ms.
        time.sleep(agents.TIMEOUT_MS / 1000)
        with agent.v2() as next_one:
            agents.check_good(get(next_one, number), None)
    end(agent, fail_open=fail_open)


# What an operator sees


def test_names_from_a_module_are_cut_and_have_no_control_characters(
    build_wat: BuildWat, start_agent: StartAgent
) -> None:
    name = "\\00\\07\\1b[2J" + "n" * 50_000
    with pytest.raises(AssertionError) as caught:
        start_agent(build_wat(module(imports=f'(import "env" "{name}" (func))')))
    said = str(caught.value)
    assert "Traceback" not in said
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", said)
    assert len(said) < 4000
