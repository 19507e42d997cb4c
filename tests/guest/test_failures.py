"""A module that fails again and again is started with pauses, and the agent says so (design, "Failures")."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.errors import ModuleError
from sentinel_wasm.guest.abi import ON_REQUEST_HEADERS
from sentinel_wasm.guest.failures import FIRST_PAUSE_S, IN_A_ROW, LONGEST_PAUSE_S, Failures, Health
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.pool import Pool
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType
from sentinel_wasm.settings import Dispatch, Isolation

from ..answering import Asked
from ..conftest import BuildWat, StartAgent
from . import wat
from .conftest import Load

SECOND = 1_000_000_000

# Traps where its input's first byte is `x`, or the method is POST.
POISONED = wat.module(
    wat.hook(
        """(if (i32.or (i32.eq (i32.load8_u (local.get $p)) (i32.const 120))
            (i32.eq (i32.load8_u offset=11 (local.get $p)) (i32.const 80)))
          (then unreachable)) (i64.const 0)"""
    )
)


def fail(failures: Failures, times: int, now_ns: int) -> None:
    for _ in range(times):
        failures.failed("trap: unreachable", now_ns)


def test_nine_failures_in_a_row_are_taken_as_they_come() -> None:
    failures = Failures()
    fail(failures, IN_A_ROW - 1, 0)
    assert not failures.degraded
    assert failures.may_start(0)


def test_pause_doubles_to_its_longest() -> None:
    failures = Failures()
    now_ns = 0
    fail(failures, IN_A_ROW - 1, now_ns)
    pauses = []
    for _ in range(8):
        fail(failures, 1, now_ns)
        assert failures.degraded
        start_ns = now_ns
        while not failures.may_start(now_ns):
            now_ns += SECOND // 4
        pauses.append((now_ns - start_ns) // SECOND)
    assert pauses == [1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_failures_of_what_was_under_way_do_not_make_the_pause_longer() -> None:
    failures = Failures()
    fail(failures, IN_A_ROW + 50, 0)
    assert not failures.may_start(FIRST_PAUSE_S * SECOND - 1)
    assert failures.may_start(FIRST_PAUSE_S * SECOND)


def test_one_success_ends_it() -> None:
    changes: list[Health] = []
    failures = Failures()
    failures.on_change = lambda: changes.append(failures.health)
    for _ in range(2):
        fail(failures, IN_A_ROW, 0)
        assert not failures.may_start(0)
        failures.succeeded()
        assert failures.may_start(0)
        assert not failures.degraded
    assert changes == ["degraded", "healthy"] * 2


def test_unhealthy_from_the_first_refused_event_until_a_success() -> None:
    changes: list[Health] = []
    failures = Failures()
    failures.on_change = lambda: changes.append(failures.health)
    fail(failures, IN_A_ROW - 1, 0)
    assert said(failures) == ("healthy", None)
    fail(failures, 1, 0)
    assert said(failures) == ("degraded", "the module keeps failing; last: trap: unreachable")
    for _ in range(2):
        assert failures.refuse(0).kind == "paused"
    trouble = "the module keeps failing, and events are answered without it; last: trap: unreachable"
    assert said(failures) == ("unhealthy", trouble)
    # A try that fails after the pause changes nothing.
    fail(failures, 1, FIRST_PAUSE_S * SECOND)
    assert said(failures) == ("unhealthy", trouble)
    failures.succeeded()
    assert said(failures) == ("healthy", None)
    assert changes == ["degraded", "unhealthy", "healthy"]


def said(failures: Failures) -> tuple[Health, str | None]:
    return failures.health, failures.trouble


def test_a_refusal_that_comes_after_the_recovery_is_no_illness() -> None:
    """A worker may report what was held before."""
    failures = Failures()
    assert failures.refuse(0).kind == "paused"
    fail(failures, IN_A_ROW, 0)
    assert failures.health == "degraded"


def test_success_between_failures_begins_the_count_anew() -> None:
    failures = Failures()
    for _ in range(100):
        fail(failures, IN_A_ROW - 1, 0)
        failures.succeeded()
    assert failures.may_start(0)


# In a pool


@pytest.fixture
def asked(load: Load, request: pytest.FixtureRequest) -> Iterator[Asked]:
    dispatch, isolation = request.param
    pool = Pool(load(POISONED), 2, Limits(event_ms=2000), dispatch=dispatch, isolation=isolation)
    asked = Asked(pool)
    yield asked
    asked.close()


POOLED: list[tuple[Dispatch, Isolation]] = [("inline", "pooled"), ("threads", "pooled")]
ISOLATED: list[tuple[Dispatch, Isolation]] = [("inline", "request"), ("threads", "request")]
WHEN_POOLED = pytest.mark.parametrize("asked", POOLED, indirect=True, ids="-".join)
WHEN_ISOLATED = pytest.mark.parametrize("asked", ISOLATED, indirect=True, ids="-".join)
EVERY_KIND = pytest.mark.parametrize("asked", POOLED + ISOLATED, indirect=True, ids="-".join)


def reason(asked: Asked, data: bytes, identity: str) -> str:
    with pytest.raises(ModuleError) as caught:
        asked.call(ON_REQUEST_HEADERS, data, identity)
    return str(caught.value)


def poison(asked: Asked) -> None:
    """Until no instance is left."""
    for number in range(IN_A_ROW + 3):
        last = reason(asked, b"x-----------", f"{number}")
        if "keeps failing" in last:
            return
        assert last == "trap: unreachable in on_request_headers"
    raise AssertionError("no end of it")


@WHEN_POOLED
def test_module_that_keeps_failing_is_not_asked_for_a_while(asked: Asked) -> None:
    poison(asked)
    start = time.monotonic()
    told = reason(asked, b"{}----------", "good")
    assert told.startswith("the module keeps failing and is started again in 1 s")
    assert told.endswith("last: trap: unreachable in on_request_headers")
    assert time.monotonic() - start < 0.5


@WHEN_POOLED
def test_after_the_pause_it_is_tried_and_one_success_brings_all_back(asked: Asked) -> None:
    poison(asked)
    asked.wait(FIRST_PAUSE_S)
    assert asked.call(ON_REQUEST_HEADERS, b"{}----------", "good") is None
    asked.until(lambda: asked.pool.is_at_rest)
    for number in range(20):
        assert asked.call(ON_REQUEST_HEADERS, b"{}----------", f"{number}") is None
    assert not asked.pool.failures.degraded


@WHEN_POOLED
def test_second_pause_is_longer(asked: Asked) -> None:
    poison(asked)
    asked.wait(FIRST_PAUSE_S)
    assert reason(asked, b"x-----------", "again") == "trap: unreachable in on_request_headers"
    asked.wait(FIRST_PAUSE_S)
    assert "started again in 1 s" in reason(asked, b"{}----------", "good")


@WHEN_ISOLATED
def test_requests_that_fail_do_not_keep_others_from_their_own_instances(asked: Asked) -> None:
    for number in range(IN_A_ROW * 3):
        assert reason(asked, b"x-----------", f"{number}") == "trap: unreachable in on_request_headers"
    assert asked.pool.failures.degraded
    assert asked.call(ON_REQUEST_HEADERS, b"{}----------", "good") is None
    assert not asked.pool.failures.degraded


@EVERY_KIND
def test_failing_requests_between_good_ones_cost_only_themselves(asked: Asked) -> None:
    for number in range(200):
        assert reason(asked, b"x-----------", f"bad {number}") == "trap: unreachable in on_request_headers"
        assert asked.call(ON_REQUEST_HEADERS, b"{}----------", f"good {number}") is None


# The whole agent


def test_v2_proxies_are_told_of_the_agents_health(start_agent: StartAgent, build_wat: BuildWat) -> None:
    """Also one that comes while it is not well: right after the handshake."""
    agent = start_agent(build_wat(POISONED))
    with agent.v2() as client:
        answers: list[Any] = []
        states: list[int] = []
        for number in range(IN_A_ROW + 10):
            answers.append(ask(client, f"{number}", "POST", states))
        assert answers[IN_A_ROW - 1]["audit"]["reason_codes"] == ["trap: unreachable in on_request_headers"]
        assert "keeps failing" in answers[-1]["audit"]["reason_codes"][0]
        assert states == [2, 4]
        with agent.v2() as late:
            assert (orjson.loads(late.receive()), late.frame_type) == ({"state": 4}, FrameType.HEALTH_STATUS)
            time.sleep(FIRST_PAUSE_S + 0.1)
            assert ask(client, "good", "GET", states)["decision"] == "allow"
            assert states == [2, 4, 1]
            assert orjson.loads(late.receive()) == {"state": 1}
        with agent.v2() as well:
            assert ask(well, "good too", "GET", states)["decision"] == "allow"
    assert states == [2, 4, 1]
    agent.wait_for_log("works again")
    assert len(agent.lines("the module keeps failing")) == len(agent.lines("the module works again")) == 1


def ask(client: ClientV2, identity: str, method: str, states: list[int]) -> Any:
    """The answer; HealthStatus frames that come before it go to `states`."""
    client.send_event(EventKind.REQUEST_HEADERS, request_headers(identity, method))
    while True:
        payload = orjson.loads(client.receive())
        if client.frame_type != FrameType.HEALTH_STATUS:
            return payload
        states.append(payload["state"])
