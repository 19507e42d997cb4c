"""`--isolation request`: a fresh instance for each request (design, "Instances, threads, time")."""

from __future__ import annotations

import contextlib
import struct
from functools import partial

import pytest

from sentinel_wasm._instances import live_stores
from sentinel_wasm._workers import live_threads
from sentinel_wasm.client import request_headers
from sentinel_wasm.errors import GuestFault, ModuleLoadError, Overload
from sentinel_wasm.guest import places
from sentinel_wasm.guest.abi import ON_REQUEST_BODY, ON_REQUEST_HEADERS
from sentinel_wasm.guest.crew import Outcome
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.pool import Pool
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.settings import Dispatch

from ..answering import Asked
from ..conftest import BuildWat, StartAgent
from . import wat
from .conftest import Fill, Load

pytestmark = pytest.mark.parallel

LIMITS = Limits(event_ms=2000)
DISPATCHES: list[Dispatch] = ["inline", "threads"]

COUNTER = 256
COUNTS = f"""(i32.store (i32.const {COUNTER}) (i32.add (i32.load (i32.const {COUNTER})) (i32.const 1)))
    {wat.returns(COUNTER, 4)}"""

# Counts its calls, whichever hook.
COUNTING = wat.module(wat.hook(COUNTS), wat.hook(COUNTS, "on_request_body"))

# Says how often it was called, up to nine times, in its tag.
TELLS = wat.module(
    wat.data(1024, b'{"decision":"allow","tags":["calls 0"]}'),
    wat.hook(
        "(i32.store8 (i32.const 1059) (i32.add (i32.load8_u (i32.const 1059)) (i32.const 1)))"
        + wat.returns(1024, 39)
    ),
    pages=3,
    alloc="(i32.const 4096)",
)


@pytest.fixture
def fill(fill: Fill) -> Fill:
    return partial(fill, size=2, limits=LIMITS, isolation="request")


def count(asked: Asked, identity: str, hook: int = ON_REQUEST_HEADERS) -> int:
    return int(struct.unpack("<I", asked.call(hook, b"{}", identity) or b"")[0])


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_module_that_counts_its_calls_always_says_1(fill: Fill, dispatch: Dispatch) -> None:
    asked = fill(COUNTING, dispatch=dispatch)
    assert {count(asked, f"{number}") for number in range(500)} == {1}


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_events_of_one_request_share_its_instance(fill: Fill, dispatch: Dispatch) -> None:
    asked = fill(COUNTING, dispatch=dispatch)
    for number in range(20):
        count(asked, f"{number}")
    assert [count(asked, f"{number}", ON_REQUEST_BODY) for number in range(20)] == [2] * 20


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_request_that_has_ended_leaves_nothing(fill: Fill, dispatch: Dispatch) -> None:
    asked = fill(COUNTING, dispatch=dispatch)
    before = live_stores()
    for _ in range(3):
        assert count(asked, "same id") == 1
        asked.pool.forget("same id")
        asked.settle()
        assert live_stores() == before


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_of_too_many_requests_the_oldest_ends(fill: Fill, dispatch: Dispatch) -> None:
    asked = fill(COUNTING, dispatch=dispatch, request_instances=4)
    before = live_stores()
    for identity in "abcd":
        count(asked, identity)
    count(asked, "a", ON_REQUEST_BODY)
    count(asked, "e")
    asked.settle()
    assert live_stores() - before == 4
    # b was the oldest: a had an event since.
    assert count(asked, "a", ON_REQUEST_BODY) == 3
    assert count(asked, "b", ON_REQUEST_BODY) == 1


def test_requests_without_end_are_ended_after_a_while(fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "KEPT_NS", 1_000_000)
    asked = fill(COUNTING, limits=Limits(event_ms=300), dispatch="inline")
    before = live_stores()
    for number in range(100):
        count(asked, f"{number}")
    assert live_stores() - before == 100
    asked.wait(0.4)
    asked.pool.sweep()
    assert live_stores() == before


def test_when_all_instances_are_at_work_it_is_overload(fill: Fill) -> None:
    spin = wat.module(wat.hook("(loop $turn (br $turn)) (i64.const 0)"))
    asked = fill(spin, limits=Limits(event_ms=500), dispatch="threads", request_instances=2)
    done: list[Outcome] = []
    for identity in "abc":
        asked.begin(ON_REQUEST_HEADERS, b"{}", identity, done.append)
    assert [type(outcome) for outcome in done] == [Overload]
    asked.until(lambda: len(done) == 3)


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_failure_costs_the_request_its_instance_only(fill: Fill, dispatch: Dispatch) -> None:
    asked = fill(wat.module(wat.hook(COUNTS), wat.hook("unreachable", "on_request_body")), dispatch=dispatch)
    for identity in "ab":
        count(asked, identity)
    with pytest.raises(GuestFault, match="trap: unreachable in on_request_body"):
        asked.call(ON_REQUEST_BODY, b"{}", "a")
    assert count(asked, "a") == 1
    assert count(asked, "b") == 2


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_start_that_fails_is_a_module_error(fill: Fill, dispatch: Dispatch) -> None:
    """The first instance starts, later ones do not: the start function draws a random number."""
    fails_at_times = wat.module(
        wat.hook(COUNTS),
        """(func $start
            (drop (call $random_get (i32.const 512) (i32.const 1)))
            (if (i32.eqz (i32.and (i32.load8_u (i32.const 512)) (i32.const 15))) (then unreachable)))
        (start $start)""",
        imports=wat.imported(f"{wat.WASI}.random_get", "i32 i32", "i32"),
    )
    asked = started_at_last(fill, fails_at_times, dispatch)
    reasons = []
    for number in range(300):
        try:
            assert count(asked, f"{number}") == 1
        except GuestFault as error:
            reasons.append(str(error))
    assert reasons
    assert set(reasons) == {"trap: unreachable in the start function"}


def started_at_last(fill: Fill, text: str, dispatch: Dispatch) -> Asked:
    """One try in sixteen fails at the first instance."""
    for _ in range(20):
        with contextlib.suppress(ModuleLoadError):
            return fill(text, dispatch=dispatch)
    raise AssertionError("it never starts")


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_every_instance_has_the_configuration(fill: Fill, dispatch: Dispatch) -> None:
    """Its length, which `on_configure` keeps and the hook tells."""
    text = wat.module(
        wat.hook(wat.returns(COUNTER, 4)),
        wat.hook("(i32.store (i32.const 256) (local.get $n)) (i64.const 0)", "on_configure"),
    )
    asked = fill(text, dispatch=dispatch)
    assert count(asked, "a") == len(b'{"config":{}}')
    asked.configure({"key": "value"})
    assert count(asked, "b") == len(b'{"config":{"key":"value"}}')


def test_closed_pool_leaves_no_thread_and_no_store(load: Load) -> None:
    threads, stores = live_threads(), live_stores()
    for isolation in ("pooled", "request"):
        asked = Asked(Pool(load(COUNTING), 3, LIMITS, dispatch="threads", isolation=isolation))
        for number in range(20):
            count(asked, f"{number}")
        assert live_threads() > threads
        asked.close()
        assert (live_threads(), live_stores()) == (threads, stores)


# The whole agent


@pytest.mark.parametrize("dispatch", ["auto", "threads"])
def test_agent_with_isolated_requests(start_agent: StartAgent, build_wat: BuildWat, dispatch: str) -> None:
    agent = start_agent(build_wat(TELLS), "--isolation", "request", "--dispatch", dispatch)
    tags = set()
    with agent.v2() as client, agent.v1() as one:
        for number in range(300):
            for asked in (client, one):
                answer = asked.ask(EventKind.REQUEST_HEADERS, request_headers(f"{number}"))
                tags.add(answer["audit"]["tags"][0])
    assert tags == {"calls 1"}


def test_body_hook_keeps_the_instance_until_the_last_chunk(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    """And a block ends it: the same id begins anew."""
    block = wat.returns(512, 20)
    text = wat.module(
        wat.hook("(i32.store (i32.const 256) (i32.const 1)) (i64.const 0)"),
        wat.hook(
            f"(if (result i64) (i32.load (i32.const 256)) (then (i64.const 0)) (else {block}))",
            "on_request_body",
        ),
        wat.data(512, b'{"decision":"block"}'),
    )
    agent = start_agent(build_wat(text), "--isolation", "request")
    chunk = {"correlation_id": "r", "data": "YQ==", "is_last": False, "chunk_index": 0, "bytes_received": 1}
    with agent.v2() as client:
        client.ask(EventKind.REQUEST_HEADERS, request_headers("r"))
        assert client.ask(EventKind.REQUEST_BODY_CHUNK, chunk)["decision"] == "allow"
        last = {**chunk, "is_last": True, "chunk_index": 1}
        assert client.ask(EventKind.REQUEST_BODY_CHUNK, last)["decision"] == "allow"
        assert client.ask(EventKind.REQUEST_BODY_CHUNK, last)["decision"] != "allow"
