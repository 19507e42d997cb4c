"""No module runs past its deadline or takes more memory than it may."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
import pytest

from sentinel_wasm.client import event_v2, request_headers
from sentinel_wasm.errors import GuestFault, ModuleError, ModuleLoadError
from sentinel_wasm.guest.abi import ON_REQUEST_HEADERS
from sentinel_wasm.guest.engine import Engine, make_engine
from sentinel_wasm.guest.instance import Instance
from sentinel_wasm.guest.limits import MIB, Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.pool import Pool
from sentinel_wasm.protocol.events import EventKind

from ..conftest import BuildWat, StartAgent, idle_seconds
from . import wat
from .apart import run_python
from .conftest import LIMIT_MS, Load, Start, started_instance

SPIN = "(loop $spin (br $spin))"
QUICK = Limits(event_ms=40, start_ms=60, restart_ms=60)

# Where it spins: the module, and the reason's place.
SPINNING = {
    "hook": (wat.module(wat.hook(f"{SPIN} (i64.const 0)")), "on_request_headers"),
    "alloc": (wat.module(wat.says("{}"), alloc=f"{SPIN} (i32.const 8)"), "alloc for on_request_headers"),
}


def reason_and_ms(instance: Instance) -> tuple[str, float]:
    start = time.monotonic()
    with pytest.raises(GuestFault) as caught:
        instance.call(ON_REQUEST_HEADERS, b"{}", "id")
    return str(caught.value), (time.monotonic() - start) * 1000


@pytest.mark.parametrize("place", SPINNING)
def test_guest_that_spins_is_interrupted(start: Start, place: str) -> None:
    text, where = SPINNING[place]
    instance = start(text, LIMIT_MS)
    reason, took_ms = reason_and_ms(instance)
    assert reason == f"deadline of 40 ms exceeded in {where}"
    assert took_ms >= 40
    assert not instance.usable


def test_interruption_is_at_most_a_few_ms_late(start: Start) -> None:
    """The best of ten: a machine under load is late for its own reasons."""
    assert min(reason_and_ms(start(SPINNING["hook"][0], LIMIT_MS))[1] for _ in range(10)) < 47


def test_dealloc_that_spins_costs_the_instance_not_the_result(start: Start) -> None:
    instance = start(wat.module(wat.says("{}"), dealloc=SPIN), LIMIT_MS)
    assert instance.call(ON_REQUEST_HEADERS, b"{}", "id") == b"{}"
    assert str(instance.guest.lost) == "deadline of 40 ms exceeded in dealloc for on_request_headers"


def test_event_whose_time_is_over_does_not_reach_the_module(start: Start) -> None:
    instance = start(wat.module(wat.hook("unreachable")), LIMIT_MS)
    with pytest.raises(ModuleError, match="deadline of 40 ms exceeded before the module was asked"):
        instance.call(ON_REQUEST_HEADERS, b"{}", "id", time.monotonic_ns() - 1)
    assert instance.usable


@pytest.mark.parametrize(
    ("extra", "where"),
    [
        (f"(func $s {SPIN}) (start $s)", "the start function"),
        (f'(func (export "_initialize") {SPIN})', "_initialize"),
        (wat.hook(f"{SPIN} (i64.const 0)", "on_configure"), "on_configure"),
    ],
)
def test_start_that_spins_is_one_clear_error(load: Load, extra: str, where: str) -> None:
    with pytest.raises(ModuleLoadError, match=f"deadline of 60 ms exceeded in {where}"):
        Pool(load(wat.module(wat.says("{}"), extra)), 1, QUICK)


def test_deadline_is_an_answer_and_the_next_event_is_healthy(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    """It spins at the first, a POST, which costs the instance; a fresh one answers the second."""
    text = wat.module(
        wat.hook(
            f"(if (i32.eq (i32.load8_u offset=11 (local.get $p)) (i32.const 80)) (then {SPIN})) (i64.const 0)"
        )
    )
    agent = start_agent(build_wat(text), "--timeout-ms", "40")
    with agent.v2() as client:
        start = time.monotonic()
        answer = client.ask(EventKind.REQUEST_HEADERS, request_headers("slow", "POST"))
        assert answer["decision"]["block"]["status"] == 500
        assert answer["audit"]["reason_codes"] == ["deadline of 40 ms exceeded in on_request_headers"]
        assert 0.04 <= time.monotonic() - start < 1
        assert client.ask(EventKind.REQUEST_HEADERS, request_headers("next"))["decision"] == "allow"


def test_waiting_behind_a_slow_event_counts(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(SPINNING["hook"][0]), "--timeout-ms", "30", "--fail-open")
    frames = [event_v2(EventKind.REQUEST_HEADERS, request_headers(name)) for name in ("one", "two")]
    with agent.v2() as client:
        client.send(b"".join(frames))
        reasons = [orjson.loads(client.receive())["audit"]["reason_codes"][0] for _ in frames]
    assert reasons == [
        "deadline of 30 ms exceeded in on_request_headers",
        "deadline of 30 ms exceeded before the module was asked",
    ]


def test_ticker_parks_when_nothing_runs(engine: Engine, start: Start) -> None:
    start(wat.module(wat.says("{}"))).call(ON_REQUEST_HEADERS, b"{}", "id")
    end = time.monotonic() + 5
    while not engine.ticker.is_parked:
        assert time.monotonic() < end
        time.sleep(0.01)
    # And wakes for the next that needs it.
    assert "deadline" in reason_and_ms(start(SPINNING["hook"][0], LIMIT_MS))[0]


def test_idle_agent_uses_no_processor(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(wat.module(wat.says('{"decision":"allow"}'))))
    with agent.v2() as client:
        # 0.5% of a core.
        assert idle_seconds(agent, client, 2, few=0.01) <= 0.01


# Memory


def module_with(memory_bytes: int, text: str) -> Module:
    return Module(make_engine(2, memory_bytes), wat.binary(text), "filter.wasm")


def test_growth_past_the_limit_fails_inside_the_guest() -> None:
    text = wat.module(
        wat.hook(
            f"(i32.store (i32.const 256) (memory.grow (i32.const 1000))) {wat.returns(256, 4)}",
        )
    )
    for memory_bytes, grown in ((16 * MIB, False), (128 * MIB, True)):
        instance = started_instance(module_with(memory_bytes, text))
        result = instance.call(ON_REQUEST_HEADERS, b"{}", "id")
        assert (result != b"\xff\xff\xff\xff") is grown


def test_module_that_declares_more_than_the_limit_is_one_clear_error() -> None:
    text = wat.module(wat.says("{}"), pages=1000)
    with pytest.raises(
        ModuleLoadError, match=r"begins with 65536000 bytes, more than --memory-limit allows \(16 MiB\)"
    ):
        module_with(16 * MIB, text)


@pytest.mark.parametrize("tables", ["(table 2000000 funcref)", "(table 1 funcref)" * 5])
def test_too_many_or_too_large_tables_are_one_clear_error(tables: str) -> None:
    with pytest.raises(ModuleLoadError, match=r"more than an instance may have: .*table"):
        module_with(MIB, wat.module(wat.says("{}"), tables))


LITTLE_ADDRESS_SPACE = """
import resource, sys, wasmtime
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.instance import Instance
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.output import GuestOutput

module = Module(make_engine(280), bytes(wasmtime.wat2wasm(sys.stdin.read())), "filter.wasm")
for _ in range(20):
    instance = Instance(module, Limits(), GuestOutput())
    instance.start_within(None, 10_000)
    print(instance.call(0, b"{}", ""))
"""


def test_where_the_address_space_is_limited_the_agent_does_without_reserving_it() -> None:
    """wasmtime's pooling allocator would end the process."""
    printed = run_python(LITTLE_ADDRESS_SPACE, wat.module(wat.says("{}"))).splitlines()
    assert printed[1:] == ["b'{}'"] * 20
    assert "the address space is limited" in printed[0]


def test_module_file_over_its_limit_is_refused(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "large.wasm"
    with path.open("wb") as file:
        file.truncate(2 * MIB)
    with pytest.raises(ModuleLoadError, match="more than --max-module-size allows"):
        Module.load(engine, path, MIB)
