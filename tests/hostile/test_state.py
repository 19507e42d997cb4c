"""Modules that are well at times: what one event leaves behind must not reach further than its instance."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from sentinel_wasm.client import ClientV2, event_v2, request_headers
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType

from ..conftest import BuildWat, RunningAgent, StartAgent, cpu_seconds
from ..guest import wat
from . import agents
from .agents import DEADLINE, Answer, Watched
from .case import FAULTY_URI, GOOD, GOOD_AT, GOOD_FUNCTION, module
from .faults import SPIN

FAIL_MODES = pytest.mark.parametrize("fail_open", [False, True], ids=["block", "fail-open"])
pytestmark = [pytest.mark.parallel, FAIL_MODES]

TRAPPED = "^trap: unreachable in on_request_headers$"
NOT_JSON = "^result of on_request_headers is not JSON"

# How many calls an instance has had, this one included, is at 512.
COUNT = "(i32.store (i32.const 512) (i32.add (i32.load (i32.const 512)) (i32.const 1)))"


def on_call(number: int, fault: str) -> str:
    return f"{COUNT} (if (i32.eq (i32.load (i32.const 512)) (i32.const {number})) (then {fault}))"


def get(client: ClientV2, number: int) -> Answer:
    answer = client.ask(EventKind.REQUEST_HEADERS, request_headers(f"get-{number}"))
    assert answer["audit"]["custom"] == {"correlation_id": f"get-{number}"}
    return answer


def is_failure(answer: Answer) -> bool:
    return "wasm-error" in answer["audit"]["tags"]


def end(agent: RunningAgent, *, fail_open: bool) -> None:
    with agent.v2() as client:
        agents.check_answers_at_all(client)
    Watched(agent, fail_open=fail_open).stop()


def test_every_second_call_of_an_instance_fails(
    start_agent: StartAgent, build_wat: BuildWat, fail_open: bool
) -> None:
    agent = agents.start(start_agent, build_wat(module(each=on_call(2, "unreachable"))), fail_open=fail_open)
    with agent.v2() as client:
        for number in range(0, 40, 2):
            # A fresh instance each time: this is always its first call.
            assert agents.check_good(get(client, number), 0) == 1
            agents.check_failure(get(client, number + 1), TRAPPED, fail_open=fail_open)
    end(agent, fail_open=fail_open)


def test_first_result_of_an_instance_is_bad(
    start_agent: StartAgent, build_wat: BuildWat, fail_open: bool
) -> None:
    """Its later ones are good, and a trap brings the next first result."""
    text = module(each=on_call(1, f"(return {wat.returns(GOOD_AT, 5)})"), fault="unreachable")
    agent = agents.start(start_agent, build_wat(text), fail_open=fail_open)
    watched = Watched(agent, fail_open=fail_open)
    with agent.v2() as client:
        for number in range(0, 20, 2):
            first, second = get(client, number), get(client, number + 1)
            agents.check_failure(first, NOT_JSON, fail_open=fail_open)
            assert agents.check_good(second, 0) == 1
            answer, _ = watched.faulty_uri(client, FAULTY_URI)
            agents.check_failure(answer, TRAPPED, fail_open=fail_open)
    end(agent, fail_open=fail_open)


LEAKS = {
    "the hook": (
        module(
            each="""(if (i32.eq (memory.grow (i32.const 128)) (i32.const -1)) (then unreachable))
                (memory.fill (i32.mul (i32.sub (memory.size) (i32.const 128)) (i32.const 65536))
                    (i32.const 1) (i32.const 0x800000))"""
        ),
        TRAPPED,
    ),
    "alloc": (
        wat.module(
            GOOD_FUNCTION,
            wat.hook("(call $good)"),
            # From the old size, 1 page and more: 0 where the growth fails, as -1 + 1 is.
            alloc="""(i32.mul (i32.const 65536) (i32.add (i32.const 1) (memory.grow (i32.const 128))))""",
        ),
        "^out of memory in the guest: alloc returned 0 for on_request_headers$",
    ),
}


@pytest.mark.parametrize("place", LEAKS)
def test_leak_costs_an_event_in_many(
    start_agent: StartAgent, build_wat: BuildWat, fail_open: bool, place: str
) -> None:
    """8 MiB a call: the eighth of an instance gets none under 64, and the next event has a fresh one."""
    text, reason = LEAKS[place]
    agent = start_agent(build_wat(text), "--pool-size", "1", *(("--fail-open",) if fail_open else ()))
    with agent.v2() as client:
        for number in range(48):
            answer = get(client, number)
            if number % 8 == 7:
                agents.check_failure(answer, reason, fail_open=fail_open)
            else:
                assert agents.check_good(answer, number % 8) == number % 8 + 1
    end(agent, fail_open=fail_open)


def test_module_that_breaks_its_allocator_is_well_again(
    start_agent: StartAgent, build_wat: BuildWat, fail_open: bool
) -> None:
    text = wat.module(
        GOOD_FUNCTION,
        wat.data(600, wat.INPUT.to_bytes(4, "little")),
        wat.hook(
            """(if (i32.eq (i32.load8_u offset=11 (local.get $p)) (i32.const 80))
                (then (i32.store (i32.const 600) (i32.const -16)))) (call $good)"""
        ),
        alloc="(i32.load (i32.const 600))",
    )
    agent = agents.start(start_agent, build_wat(text), fail_open=fail_open)
    watched = Watched(agent, fail_open=fail_open)
    with agent.v2() as client:
        for number in range(0, 20, 2):
            answer, _ = watched.faulty_uri(client, FAULTY_URI)
            agents.check_good(answer, None)
            agents.check_failure(
                get(client, number), "^alloc returned a buffer outside the memory", fail_open=fail_open
            )
            assert agents.check_good(get(client, number + 1), 0) == 1
    end(agent, fail_open=fail_open)


def test_module_that_breaks_its_answer_hurts_itself_only(
    start_agent: StartAgent, build_wat: BuildWat, fail_open: bool
) -> None:
    """It talks nonsense from then on, unless a fresh instance takes over."""
    text = module(fault=f"(memory.fill (i32.const {GOOD_AT}) (i32.const 0) (i32.const {len(GOOD)}))")
    agent = agents.start(start_agent, build_wat(text), fail_open=fail_open)
    with agent.v2() as client:
        assert agents.check_good(get(client, 0), 0) == 1
        answer, _ = Watched(agent, fail_open=fail_open).faulty_uri(client, FAULTY_URI)
        agents.check_failure(answer, NOT_JSON, fail_open=fail_open)
        for number in range(1, 5):
            answer = get(client, number)
            if is_failure(answer):
                agents.check_failure(answer, NOT_JSON, fail_open=fail_open)
            else:
                agents.check_good(answer, None)
    end(agent, fail_open=fail_open)


def test_stop_while_the_module_loops(start_agent: StartAgent, build_wat: BuildWat, fail_open: bool) -> None:
    """The event that is under way is answered, and the agent ends well."""
    agent = agents.start(start_agent, build_wat(module(fault=SPIN)), fail_open=fail_open)
    with agent.v2() as client:
        agents.check_good(get(client, 0), 0)
        before, end_s = cpu_seconds(agent.process.pid), time.monotonic() + 2
        client.send_event(EventKind.REQUEST_HEADERS, request_headers("last", "POST"))
        while cpu_seconds(agent.process.pid) - before < 0.02 and time.monotonic() < end_s:
            time.sleep(0.005)
        agent.process.send_signal(signal.SIGTERM)
        last = client.receive()
        if client.frame_type == FrameType.HEALTH_STATUS:  # it says at once that it stops
            last = client.receive()
        answer = orjson.loads(last)
        agents.check_failure(answer, f"^{DEADLINE} in on_request_headers$", fail_open=fail_open)
        assert agent.process.wait(10) == 0
    assert not agent.socket.exists()


def test_traps_on_many_connections_do_not_mix_up_answers(
    start_agent: StartAgent, build_wat: BuildWat, fail_open: bool
) -> None:
    """Each of four connections gets exactly its own answers; every fourth event traps."""
    agent = start_agent(build_wat(module(fault="unreachable")), *(("--fail-open",) if fail_open else ()))
    with ThreadPoolExecutor(4) as connections:
        for _ in connections.map(lambda name: trap_now_and_then(agent, name, fail_open), "abcd"):
            pass
    end(agent, fail_open=fail_open)


def trap_now_and_then(agent: RunningAgent, name: str, fail_open: bool) -> None:
    with agent.v2() as client:
        for batch in range(10):
            methods = {
                f"{name}-{batch}-{number}": "POST" if number % 4 == 3 else "GET" for number in range(8)
            }
            client.send(
                b"".join(
                    event_v2(EventKind.REQUEST_HEADERS, request_headers(identity, method))
                    for identity, method in methods.items()
                )
            )
            for _ in range(8):
                answer = orjson.loads(client.receive())
                if methods.pop(answer["audit"]["custom"]["correlation_id"]) == "POST":
                    agents.check_failure(answer, TRAPPED, fail_open=fail_open)
                else:
                    agents.check_good(answer, None)
