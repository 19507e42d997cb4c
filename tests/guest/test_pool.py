"""The instances that answer events, and their configuration (guest-abi.md, "Optional exports")."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import structlog

from sentinel_wasm.errors import GuestFault, ModuleError, ModuleLoadError
from sentinel_wasm.guest.abi import ON_REQUEST_HEADERS, ON_RESPONSE_HEADERS
from sentinel_wasm.guest.instance import ConfigRefused, Instance

from ..answering import Asked
from . import wat
from .conftest import SIZE, Fill
from .wat import returns

pytestmark = pytest.mark.parallel

IDS = [f"request-{number}" for number in range(100)]  # enough to reach every instance

COUNTER, FLAG, KEPT = 256, 264, 4096  # addresses
IMPORTS = wat.imported("sentinel.log", "i32 i32 i32")

COUNTS = f"""(i32.store (i32.const {COUNTER}) (i32.add (i32.load (i32.const {COUNTER})) (i32.const 1)))
    {returns(COUNTER, 4)}"""

# Counts its calls and returns the count; the input `trap` makes it trap.
COUNTING = wat.module(
    wat.hook(f"(if (i32.eq (local.get $n) (i32.const 4)) (then unreachable)) {COUNTS}"),
    "(func $s (call $log (i32.const 2) (i32.const 2048) (i32.const 7))) (start $s)",
    wat.data(2048, b"started"),
    imports=IMPORTS,
)

REFUSAL = b'{"error": "too long"}'
NONSENSE = b'no![]{"error": 1}'


def configured(refusal: str = f"(return {returns(8192, len(REFUSAL))})") -> str:
    """A module that logs and keeps each configuration; its first hook returns the one it has kept.

    It refuses one of over 40 bytes (the whole input), and any once its second hook has been called.
    """
    return wat.module(
        wat.hook(
            f"(i64.or (i64.shl (i64.const {KEPT}) (i64.const 32)) (i64.load32_u (i32.const {KEPT - 4})))"
        ),
        wat.hook(f"(i32.store (i32.const {FLAG}) (i32.const 1)) (i64.const 0)", "on_response_headers"),
        wat.hook(
            f"""(call $log (i32.const 2) (local.get $p) (local.get $n))
            (if (i32.or (i32.gt_u (local.get $n) (i32.const 40)) (i32.load (i32.const {FLAG})))
              (then {refusal}))
            (memory.copy (i32.const {KEPT}) (local.get $p) (local.get $n))
            (i32.store (i32.const {KEPT - 4}) (local.get $n))
            (i64.const 0)""",
            "on_configure",
        ),
        wat.data(8192, REFUSAL),
        wat.data(8292, NONSENSE),
        imports=IMPORTS,
    )


CONFIGURED = configured()
TOO_LONG = {"text": "x" * 60}

Log = list[dict[str, Any]]


def instances(pool: Asked) -> list[Instance]:
    return pool.pool.instances


def ask(pool: Asked, identity: str, data: bytes = b"{}") -> Any:
    return pool.call(ON_REQUEST_HEADERS, data, identity)


def count(pool: Asked, identity: str) -> int:
    """How many calls the instance of a request has had, with this one."""
    return int(struct.unpack("<I", ask(pool, identity))[0])


def trap(pool: Asked, identity: str) -> None:
    with pytest.raises(GuestFault, match="trap: unreachable"):
        ask(pool, identity, b"trap")
    pool.settle()


def logged(log: Log) -> list[Any]:
    """The configurations that `on_configure` got, in order."""
    found = [json.loads(entry["text"]) for entry in log if entry.get("source") == "log"]
    log.clear()
    return found


def kept(pool: Asked) -> list[Any]:
    """The configuration that each instance works with."""
    return [json.loads(instance.call(ON_REQUEST_HEADERS, b"{}", "") or b"") for instance in instances(pool)]


# Instances


@pytest.mark.parametrize("size", [1, 2, 7])
def test_instances_are_made_before_the_first_event(fill: Fill, log: Log, size: int) -> None:
    pool = fill(COUNTING, size)
    assert [entry["text"] for entry in log] == ["started"] * size
    for identity in IDS:
        ask(pool, identity)
    assert len(log) == size


def test_one_request_stays_with_one_instance(fill: Fill) -> None:
    pool = fill(COUNTING)
    for identity in IDS:
        ask(pool, identity)
    before = count(pool, "mine")
    assert [count(pool, "mine") for _ in range(3)] == [before + 1, before + 2, before + 3]


def test_instances_share_nothing_and_all_take_their_part(fill: Fill) -> None:
    pool = fill(COUNTING)
    counts = [count(pool, identity) for identity in IDS]
    assert counts.count(1) == SIZE
    assert max(counts) < len(IDS) / 2


def test_trapped_instance_is_replaced_by_a_fresh_one(fill: Fill) -> None:
    pool = fill(COUNTING)
    for _ in range(3):
        assert [count(pool, "mine"), count(pool, "mine")] == [1, 2]
        trap(pool, "mine")


def test_trap_leaves_the_other_instances(fill: Fill) -> None:
    pool = fill(COUNTING, 2)
    for identity in IDS:
        ask(pool, identity)
    trap(pool, "mine")
    counts = [
        struct.unpack("<I", instance.call(ON_REQUEST_HEADERS, b"{}", "") or b"")[0]
        for instance in instances(pool)
    ]
    assert min(counts) == 1
    assert max(counts) > len(IDS) / 4


def test_instance_lost_in_dealloc_is_replaced(fill: Fill) -> None:
    # The result counts, the instance does not.
    pool = fill(wat.module(wat.hook(COUNTS), dealloc="unreachable"), 1)
    assert [count(pool, "mine"), count(pool, "mine")] == [1, 1]


def test_instance_lost_in_dealloc_is_said_in_the_log(fill: Fill) -> None:
    pool = fill(wat.module(wat.says("{}"), dealloc="unreachable"))
    with structlog.testing.capture_logs() as logs:
        assert ask(pool, "a") == b"{}"
    (line,) = (line for line in logs if line["log_level"] == "warning")
    assert line["reason"] == "trap: unreachable in dealloc for on_request_headers"
    assert (line["kind"], line["correlation_id"]) == ("trap", "a")


def test_closed_pool_has_closed_its_instances(fill: Fill) -> None:
    pool = fill(COUNTING)
    before = instances(pool)
    pool.pool.close()
    assert not any(instance.usable for instance in before)


# Configuration


def test_every_instance_gets_the_empty_configuration_before_its_first_event(fill: Fill, log: Log) -> None:
    fill(CONFIGURED)
    assert logged(log) == [{"config": {}}] * SIZE


@pytest.mark.parametrize("config", [{"a": 1}, {"a": [None, "é"]}, [], "text", 0, False])
def test_every_instance_gets_a_configuration_once(fill: Fill, log: Log, config: Any) -> None:
    pool = fill(CONFIGURED)
    logged(log)
    pool.configure(config)
    assert logged(log) == [{"config": config}] * SIZE
    assert kept(pool) == [{"config": config}] * SIZE


def test_configuration_is_not_given_again_while_it_is_the_same(fill: Fill, log: Log) -> None:
    pool = fill(CONFIGURED)
    pool.configure({"a": 1, "b": 2})
    logged(log)
    pool.configure({"b": 2, "a": 1})
    assert logged(log) == []


def test_configuration_that_changes_is_given_again(fill: Fill, log: Log) -> None:
    pool = fill(CONFIGURED)
    logged(log)
    for config in ({"a": 1}, {"a": 2}, {"a": 1}):
        pool.configure(config)
    assert logged(log) == [{"config": {"a": number}} for number in (1, 2, 1) for _ in range(SIZE)]


@pytest.mark.parametrize(("old", "new"), [({"on": 1}, {"on": True}), ({"on": False}, {"on": 0})])
def test_number_that_becomes_a_boolean_is_a_change(fill: Fill, log: Log, old: Any, new: Any) -> None:
    # Python takes 1 for True, JSON and the module do not.
    pool = fill(CONFIGURED)
    pool.configure(old)
    logged(log)
    pool.configure(new)
    assert [json.dumps(config) for config in logged(log)] == [json.dumps({"config": new})] * SIZE


@pytest.mark.parametrize("config", [None, {}])
def test_empty_configuration_at_first_is_no_change(fill: Fill, log: Log, config: Any) -> None:
    # Both reach the module as {"config": {}}, which it already has.
    pool = fill(CONFIGURED)
    logged(log)
    pool.configure(config)
    assert logged(log) == []


def test_null_takes_a_configuration_back(fill: Fill) -> None:
    pool = fill(CONFIGURED)
    pool.configure({"a": 1})
    pool.configure(None)
    assert kept(pool) == [{"config": {}}] * SIZE


def test_module_without_the_hook_takes_any_configuration(fill: Fill) -> None:
    pool = fill(COUNTING)
    count(pool, "mine")
    pool.configure({"a": 1})
    assert count(pool, "mine") == 2


def test_refusal_has_the_modules_own_words(fill: Fill) -> None:
    with pytest.raises(ConfigRefused) as caught:
        fill(CONFIGURED).configure(TOO_LONG)
    assert str(caught.value) == "too long"


def test_refused_configuration_leaves_the_old_one(fill: Fill) -> None:
    pool = fill(CONFIGURED)
    pool.configure({"a": 1})
    with pytest.raises(ConfigRefused):
        pool.configure(TOO_LONG)
    assert kept(pool) == [{"config": {"a": 1}}] * SIZE


@pytest.mark.parametrize("refusing", range(SIZE))
def test_configuration_that_one_instance_refuses_is_taken_by_none(fill: Fill, refusing: int) -> None:
    pool = fill(CONFIGURED)
    pool.configure({"a": 1})
    instances(pool)[refusing].call(ON_RESPONSE_HEADERS, b"{}", "")
    with pytest.raises(ConfigRefused):
        pool.configure({"a": 2})
    assert kept(pool) == [{"config": {"a": 1}}] * SIZE


def test_refused_configuration_is_offered_again(fill: Fill, log: Log) -> None:
    pool = fill(CONFIGURED)
    for _ in range(2):
        with pytest.raises(ConfigRefused):
            pool.configure(TOO_LONG)
    assert {"config": TOO_LONG} in logged(log)


def test_other_configuration_after_a_refusal_is_taken(fill: Fill) -> None:
    pool = fill(CONFIGURED)
    with pytest.raises(ConfigRefused):
        pool.configure(TOO_LONG)
    pool.configure({"a": 3})
    assert kept(pool) == [{"config": {"a": 3}}] * SIZE


FAILING = {
    "trap": ("unreachable", "trap: unreachable in on_configure"),
    "no JSON": (f"(return {returns(8292, 3)})", "result of on_configure is not JSON"),
    "array": (f"(return {returns(8295, 2)})", "result of on_configure is an array"),
    "wrong type": (f"(return {returns(8297, 12)})", "error is an integer"),
    "outside": (f"(return {returns(2**32 - 1, 2)})", "result of on_configure lies outside the memory"),
}


@pytest.mark.parametrize("failure", FAILING)
def test_configuration_on_which_the_module_fails_leaves_the_old_one(fill: Fill, failure: str) -> None:
    refusal, reason = FAILING[failure]
    pool = fill(configured(refusal))
    pool.configure({"a": 1})
    with pytest.raises(ModuleError, match=reason):
        pool.configure(TOO_LONG)
    assert kept(pool) == [{"config": {"a": 1}}] * SIZE


@pytest.mark.parametrize("result", ["{}", '{"error": null}', '{"ok": true}'])
def test_result_without_error_accepts(fill: Fill, result: str) -> None:
    pool = fill(wat.module(wat.says("{}"), wat.says(result, "on_configure", at=8192)))
    pool.configure({"a": 1})
    assert ask(pool, "mine") == b"{}"


TRAPPING = wat.module(
    wat.hook("unreachable"),
    wat.hook("(call $log (i32.const 2) (local.get $p) (local.get $n)) (i64.const 0)", "on_configure"),
    imports=IMPORTS,
)


def test_replaced_instance_gets_the_configuration_of_the_others(fill: Fill, log: Log) -> None:
    pool = fill(TRAPPING)
    pool.configure({"a": 1})
    logged(log)
    trap(pool, "mine")
    assert logged(log) == [{"config": {"a": 1}}]


def test_lost_instance_gets_the_new_configuration_with_the_others(fill: Fill, log: Log) -> None:
    pool = fill(TRAPPING)
    with pytest.raises(GuestFault):
        ask(pool, "mine")
    logged(log)
    pool.configure({"a": 1})
    assert {json.dumps(config) for config in logged(log)} >= {'{"config": {"a": 1}}'}
    trap(pool, "mine")
    assert logged(log) == [{"config": {"a": 1}}]


# What cannot be started


def test_module_that_refuses_the_empty_configuration_is_not_started(fill: Fill) -> None:
    with pytest.raises(ModuleLoadError, match=r"filter\.wasm.*give me rules"):
        fill(wat.module(wat.says("{}"), wat.says('{"error": "give me rules"}', "on_configure", at=8192)))


def test_instance_that_cannot_be_replaced_is_a_module_error_each_time(fill: Fill) -> None:
    # Takes a configuration after the empty one, but not as the first one.
    configure = f"""
        (if (i32.and (i32.gt_u (local.get $n) (i32.const 13)) (i32.eqz (i32.load (i32.const {FLAG}))))
          (then (return {returns(8192, len(REFUSAL))})))
        (i32.store (i32.const {FLAG}) (i32.const 1)) (i64.const 0)"""
    pool = fill(
        wat.module(wat.hook("unreachable"), wat.hook(configure, "on_configure"), wat.data(8192, REFUSAL)), 1
    )
    pool.configure({"a": 1})
    with pytest.raises(GuestFault, match="trap: unreachable"):
        ask(pool, "mine")
    for _ in range(3):
        with pytest.raises(ModuleError, match="cannot be started again: too long"):
            ask(pool, "mine")
