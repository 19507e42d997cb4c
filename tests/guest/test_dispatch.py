"""Quick modules run on the event loop, slow ones on worker threads (design, "Instances, threads, time")."""

from __future__ import annotations

import contextlib
import select
import signal
import time
from functools import partial
from typing import Any

import pytest

from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.errors import ModuleError, Overload
from sentinel_wasm.guest import calm
from sentinel_wasm.guest.abi import ON_REQUEST_BODY, ON_REQUEST_HEADERS
from sentinel_wasm.guest.crew import Outcome
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.pool import LATER
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType
from sentinel_wasm.settings import Dispatch

from ..answering import Asked
from ..conftest import BuildWat, StartAgent, idle_seconds
from . import wat
from .conftest import Fill, Load, started_instance

LIMITS = Limits(event_ms=200)

# Spins for as many turns as its input's first eight bytes say.
SPINS = wat.module(
    wat.hook(
        """(local.set $w (i64.load (local.get $p)))
        (loop $turn (local.set $w (i64.sub (local.get $w) (i64.const 1)))
          (br_if $turn (i64.gt_s (local.get $w) (i64.const 0))))
        (i64.const 0)"""
    )
)
SLEEPS = wat.module(
    wat.data(2048 + 16, (1).to_bytes(4, "little")),
    wat.hook(
        """(i64.store (i32.const 2072) (i64.load (local.get $p)))
        (drop (call $poll_oneoff (i32.const 2048) (i32.const 4096) (i32.const 1) (i32.const 600)))
        (i64.const 0)"""
    ),
    imports=wat.imported(f"{wat.WASI}.poll_oneoff", "i32 i32 i32 i32", "i32"),
)
FOREVER = 2**62


def number(value: int) -> bytes:
    return value.to_bytes(8, "little")


@pytest.fixture(scope="module")
def turns_a_ms(load: Load) -> int:
    """How many turns of SPINS this machine makes in a millisecond."""
    instance = started_instance(load(SPINS), 1000)
    turns = 2_000_000
    best = min(_seconds(lambda: instance.call(ON_REQUEST_HEADERS, number(turns), "")) for _ in range(5))
    return int(turns / best / 1000)


def _seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@pytest.fixture
def fill(fill: Fill) -> Fill:
    return partial(fill, limits=LIMITS)


def runs_inline(asked: Asked) -> bool:
    """Where the next call of a module that answers at once runs."""
    deadline_ns = time.monotonic_ns() + LIMITS.event_ms * 1_000_000
    outcome = asked.pool.call(ON_REQUEST_HEADERS, number(1), "id", deadline_ns)
    return outcome is not LATER


def test_quick_module_runs_on_the_event_loop(fill: Fill) -> None:
    asked = fill(SPINS)
    for _ in range(1000):
        assert runs_inline(asked)


@pytest.mark.parametrize("text", [SPINS, SLEEPS], ids=["works", "sleeps"])
def test_one_slow_call_moves_the_module_to_workers(fill: Fill, turns_a_ms: int, text: str) -> None:
    asked = fill(text)
    slow = 16 * turns_a_ms if text == SPINS else 16_000_000
    asked.call(ON_REQUEST_HEADERS, number(slow), "id")
    assert not runs_inline(asked)
    assert asked.call(ON_REQUEST_HEADERS, number(1), "id") is None


def test_two_calls_that_are_a_little_slow_move_it_within_a_second(fill: Fill) -> None:
    """One alone may be the machine's doing; as may be one that takes over 8 ms here, which is tried again."""

    class OversleptError(Exception):
        pass

    def call(asked: Asked) -> bool:
        began = time.monotonic()
        asked.call(ON_REQUEST_HEADERS, number(3_000_000), "id")
        if time.monotonic() - began > 0.007:
            raise OversleptError
        return runs_inline(asked)

    def attempt() -> None:
        asked = fill(SLEEPS)
        for _ in range(2):
            assert call(asked)
            asked.wait(1.1)
        assert call(asked)
        assert not call(asked)

    for _ in range(10):
        try:
            return attempt()
        except OversleptError:
            continue
    pytest.fail("this machine cannot sleep for 3 ms")


def test_many_calls_in_one_turn_of_the_loop_move_it_too(fill: Fill, turns_a_ms: int) -> None:
    """Each takes 0.5 ms only, but all came in at once: the last has waited for the others."""
    asked = fill(SPINS)
    deadline_ns = time.monotonic_ns() + LIMITS.event_ms * 1_000_000
    outcomes = [
        asked.pool.call(ON_REQUEST_HEADERS, number(turns_a_ms // 2), "id", deadline_ns) for _ in range(40)
    ]
    assert outcomes[0] is None
    assert outcomes[-1] is LATER


def test_it_comes_back_after_a_calm_while(
    fill: Fill, turns_a_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calm, "CALM_NS", 200_000_000)
    asked = fill(SPINS)
    asked.call(ON_REQUEST_HEADERS, number(16 * turns_a_ms), "id")
    asked.wait(0.3)
    # What is slow begins the wait anew.
    asked.call(ON_REQUEST_HEADERS, number(40 * turns_a_ms), "id")
    asked.call(ON_REQUEST_HEADERS, number(1), "id")
    assert not runs_inline(asked)
    # A little of it does not.
    asked.wait(0.15)
    asked.call(ON_REQUEST_HEADERS, number(turns_a_ms), "id")
    asked.wait(0.15)
    asked.call(ON_REQUEST_HEADERS, number(1), "id")
    assert runs_inline(asked)


def test_inline_and_threads_force_one(fill: Fill, turns_a_ms: int) -> None:
    inline, threads = fill(SPINS, dispatch="inline"), fill(SPINS, dispatch="threads")
    for _ in range(3):
        inline.call(ON_REQUEST_HEADERS, number(4 * turns_a_ms), "id")
        assert runs_inline(inline)
        assert not runs_inline(threads)
    threads.call(ON_REQUEST_HEADERS, number(1), "id")
    assert not runs_inline(threads)


def begin(asked: Asked, turns: int, identity: str, done: list[Outcome]) -> None:
    asked.begin(ON_REQUEST_HEADERS, number(turns), identity, done.append)


def test_slow_calls_of_any_ids_overlap(fill: Fill) -> None:
    """Four that sleep for 100 ms each are done in little more than that: the least busy takes the next."""
    asked = fill(SLEEPS, dispatch="threads")
    done: list[Outcome] = []
    start = time.monotonic()
    for identity in ("a", "b", "c", "d"):
        begin(asked, 100_000_000, identity, done)
    asked.until(lambda: len(done) == 4)
    assert done == [None] * 4
    assert time.monotonic() - start < 0.195


# Takes any configuration while it runs, but a fresh instance spins at a long one.
SPINS_WHEN_FRESH = wat.module(
    wat.hook("unreachable"),
    wat.hook(
        """(if (i32.and (i32.gt_u (local.get $n) (i32.const 13)) (i32.eqz (i32.load (i32.const 256))))
          (then (loop $turn (br $turn))))
        (i32.store (i32.const 256) (i32.const 1)) (i64.const 0)""",
        "on_configure",
    ),
)


def test_events_behind_a_worker_that_is_late_are_answered_in_time_and_once(fill: Fill) -> None:
    """Its instance is lost, and starting it again takes the whole second that it may."""
    asked = fill(SPINS_WHEN_FRESH, dispatch="threads", size=1)
    asked.configure({"a": 1})
    done: list[Outcome] = []
    begin(asked, 1, "first", done)
    asked.until(lambda: len(done) == 1)
    start = time.monotonic()
    begin(asked, 1, "second", done)
    asked.until(lambda: len(done) == 2)
    assert 0.2 <= time.monotonic() - start < 0.6
    assert str(done[1]) == "deadline of 200 ms exceeded"
    asked.until(lambda: asked.pool.is_at_rest)
    assert len(done) == 2


def test_full_queue_is_overload_at_once(fill: Fill) -> None:
    asked = fill(SLEEPS, dispatch="threads", size=1, queue_limit=3)
    done: list[Outcome] = []
    for identity in "abcde":
        begin(asked, 10_000_000, identity, done)
    assert [str(error) for error in done] == ["3 events are waiting, as many as --queue-limit allows"] * 2
    assert all(isinstance(error, Overload) for error in done)
    asked.until(lambda: len(done) == 5)
    assert done[2:] == [None] * 3


def test_event_that_would_wait_until_its_deadline_is_overload_at_once(fill: Fill) -> None:
    asked = fill(SLEEPS, dispatch="threads", size=1)
    # It has learned that a call takes 30 ms.
    for _ in range(30):
        asked.call(ON_REQUEST_HEADERS, number(30_000_000), "id")
    done: list[Outcome] = []
    for identity in range(20):
        begin(asked, 30_000_000, f"{identity}", done)
    assert done
    assert all(isinstance(error, Overload) for error in done)
    asked.until(lambda: len(done) == 20)
    assert [outcome for outcome in done if not isinstance(outcome, Overload)] == [None] * (
        20 - sum(isinstance(outcome, Overload) for outcome in done)
    )
    assert done.count(None) >= 3


def test_failure_on_a_worker_costs_its_own_event_only(fill: Fill) -> None:
    text = wat.module(
        wat.hook("(if (i64.eqz (i64.load (local.get $p))) (then unreachable)) (i64.const 0)"),
    )
    asked = fill(text, dispatch="threads", size=1)
    done: list[Outcome] = []
    for turns in (1, 0, 1, 0, 1):
        begin(asked, turns, "id", done)
    asked.until(lambda: len(done) == 5)
    assert [type(outcome).__name__ for outcome in done] == [
        "NoneType",
        "GuestFault",
        "NoneType",
        "GuestFault",
        "NoneType",
    ]


# A request's first hook keeps the number in its input; its body hook tells it.
KEEPS = wat.module(
    wat.hook("(i32.store (i32.const 256) (i32.load (local.get $p))) (i64.const 0)"),
    wat.hook(wat.returns(256, 4), "on_request_body"),
)


@pytest.mark.parametrize("dispatch", ["inline", "threads"])
def test_events_of_one_request_reach_the_same_instance(fill: Fill, dispatch: Dispatch) -> None:
    asked = fill(KEEPS, 7, dispatch=dispatch)
    for group in range(20):
        # As many as there are instances, all at once: each must have one to itself where workers run them.
        identities = [f"{group}-{index}" for index in range(7 if dispatch == "threads" else 1)]
        done: list[Outcome] = []
        for index, identity in enumerate(identities):
            asked.begin(ON_REQUEST_HEADERS, (100 + index).to_bytes(4, "little"), identity, done.append)
        asked.until(lambda: len(done) == len(identities))  # noqa: B023
        for index, identity in enumerate(identities):
            told = asked.call(ON_REQUEST_BODY, b"{}", identity)
            assert told == (100 + index).to_bytes(4, "little")


def test_module_error_on_a_worker_is_raised(fill: Fill) -> None:
    asked = fill(wat.module(wat.hook("unreachable")), dispatch="threads")
    with pytest.raises(ModuleError, match="trap: unreachable in on_request_headers"):
        asked.call(ON_REQUEST_HEADERS, b"{}", "id")


# The whole agent

WORKS_ON_POST = """(if (i32.eq (i32.load8_u offset=11 (local.get $p)) (i32.const 80)) (then
    (local.set $w (i64.const {turns}))
    (loop $turn (local.set $w (i64.sub (local.get $w) (i64.const 1)))
      (br_if $turn (i64.gt_s (local.get $w) (i64.const 0)))))) (i64.const 0)"""


def post(client: ClientV2, identity: str) -> None:
    client.send_event(EventKind.REQUEST_HEADERS, request_headers(identity, "POST"))


@pytest.mark.parametrize("dispatch", ["auto", "threads"])
def test_four_slow_calls_overlap_on_two_cores(
    start_agent: StartAgent, build_wat: BuildWat, turns_a_ms: int, dispatch: str
) -> None:
    text = wat.module(wat.hook(WORKS_ON_POST.format(turns=20 * turns_a_ms)))
    agent = start_agent(build_wat(text), "--dispatch", dispatch, "--timeout-ms", "200")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(agent.v2()) for _ in range(4)]
        alone = min(times[-1] for times in rounds_of(clients[:1], "alone"))
        rounds = rounds_of(clients, "together")
    # One after the other, the last is answered after four times as long, the first after a quarter of that.
    # Two cores of their own take half as long; where others use them too, all four end at about one time.
    assert (
        min(times[-1] for times in rounds) < 3 * alone or max(times[0] / times[-1] for times in rounds) > 0.5
    )


def rounds_of(clients: list[ClientV2], name: str) -> list[list[float]]:
    """Eight rounds, without those in which the machine had no time and a deadline passed."""
    rounds = [answer_times(clients, f"{name}-{number}") for number in range(8)]
    rounds = [times for times in rounds if len(times) == len(clients)]
    assert rounds
    return rounds


def answer_times(clients: list[ClientV2], name: str) -> list[float]:
    """When each client's slow call was allowed, in seconds, the first one first."""
    start = time.perf_counter()
    for index, client in enumerate(clients):
        post(client, f"{name}-{index}")
    waiting = {client.sock: client for client in clients}
    times = []
    while waiting:
        for sock in select.select(list(waiting), [], [], 10)[0]:
            if b'"allow"' in waiting.pop(sock).receive():
                times.append(time.perf_counter() - start)
    return times


@pytest.mark.parametrize("dispatch", ["auto", "threads"])
def test_while_one_request_spins_the_others_are_answered(
    start_agent: StartAgent, build_wat: BuildWat, dispatch: str
) -> None:
    text = wat.module(wat.hook(WORKS_ON_POST.format(turns=FOREVER)))
    agent = start_agent(build_wat(text), "--dispatch", dispatch, "--timeout-ms", "500")
    with agent.v2() as spinning, agent.v2() as other, agent.v1() as one:
        if dispatch == "auto":
            post(spinning, "the first")
            spinning.receive()
        post(spinning, "spins")
        start = time.monotonic()
        for index in range(20):
            for client in (other, one):
                answer = client.ask(EventKind.REQUEST_HEADERS, request_headers(f"{index}"))
                assert answer["decision"] == "allow"
        assert time.monotonic() - start < 0.4
        assert b"deadline of 500 ms exceeded" in spinning.receive()


def test_connections_that_wait_are_answered_before_the_agent_stops(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    text = wat.module(wat.hook(WORKS_ON_POST.format(turns=FOREVER)))
    agent = start_agent(build_wat(text), "--dispatch", "threads", "--timeout-ms", "300")
    with agent.v2() as two, agent.v1() as one:
        post(two, "waits")
        assert one.ask(EventKind.REQUEST_HEADERS, request_headers("quick"))["decision"] == "allow"
        agent.process.send_signal(signal.SIGTERM)
        assert b'"waits"' in _until_event(two)
    assert agent.process.wait(10) == 0
    assert '"threads":0,"instances":0' in agent.log


def _until_event(client: ClientV2) -> bytes:
    """The next answer; HealthStatus frames come between."""
    while True:
        payload = client.receive()
        if client.frame_type == FrameType.AGENT_RESPONSE:
            return payload


def test_idle_workers_use_no_processor(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(wat.module(wat.says("{}"))), "--dispatch", "threads")
    with agent.v2() as client:
        assert idle_seconds(agent, client, 2, few=0.01) <= 0.01
