"""Four agents over gRPC: one is killed, one hangs, one is slow, all are upgraded: every event has an answer.

The proxy has them behind HAProxy, over four connections, and answers by its failure mode where an agent does
not. A client that balances by itself gets a decision each time.

MANY_MACHINES says for how many seconds each fault lasts (1), and lets the proxy come back between restarts:
docs/many-machines.md has the figures of a run.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import ROOT, until
from ..guest.wat import binary
from ..wat import module
from .balancer import Balancer
from .fleet import Machine, fleet
from .loads import HTTP_CLIENTS, Loads
from .proxy import ZENTINEL, RunningProxy, start_proxy
from .upstream import Upstream

pytestmark = pytest.mark.e2e

IS_LONG = "MANY_MACHINES" in os.environ
FAULT_S = float(os.environ.get("MANY_MACHINES", "1"))
NOTICED_S = 2.5  # what hangs has been cut off by the balancer, and its last events have timed out
RECONNECT_S = 11.0  # the proxy tries every 10 s
# When one agent goes: three on each of the proxy's connections, if it has them all, and what is under way.
MOST_FAILED = 3 * 4 + HTTP_CLIENTS

# Errors of one connection must not open it, and it must not stay open for long.
BREAKER = """
        circuit-breaker {
            failure-threshold 20
            success-threshold 1
            timeout-seconds 1
            half-open-max-requests 10
        }"""


def tagging(version: str) -> bytes:
    """Allows, and says which version did, to a gRPC client and to the upstream."""
    answer = {"decision": "allow", "tags": [version], "add_request_headers": {"X-Version": version}}
    return binary(module(on_request_headers=json.dumps(answer)))


FIRST, SECOND = tagging("first"), tagging("second")
# Interrupted at the agent's --timeout-ms, at every event.
ENDLESS = binary(
    module(
        '(func (export "on_request_headers") (param i32 i32) (result i64) (loop $on (br $on)) unreachable)'
    )
)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    ZENTINEL.binary()  # skips before anything starts
    with fleet(tmp_path, FIRST, "--timeout-ms", "300") as started:
        yield started


@pytest.fixture
def proxy(tmp_path: Path, machines: list[Machine], upstream: Upstream) -> Iterator[RunningProxy]:
    with Balancer(tmp_path, [machine.at for machine in machines]) as balancer:
        changes = {
            'unix-socket "/tmp/sentinel-wasm.sock"': f'grpc "http://127.0.0.1:{balancer.port}"{BREAKER}',
            ' "request_body" "response_headers" "response_body"': "",
        }
        started = start_proxy(ZENTINEL, tmp_path, upstream.port, Path("/nowhere"), changes)
        yield started
        started.kill()


def test_every_event_has_an_answer(proxy: RunningProxy, machines: list[Machine]) -> None:
    with Loads(proxy, machines) as loads:
        rolled_out_in_turn(loads, machines)
    answered = len(loads.http.answered) + len(loads.grpc.answered)
    assert answered <= sum(machine.events() for machine in machines) <= answered + loads.grpc.retries
    with Loads(proxy, machines) as loads:
        killed(loads, machines[0])
        hangs(loads, machines[1])
        slow(loads, machines[2])
        restarted_in_turn(loads, machines)
        all_killed(loads, machines)
    assert "unknown correlation ID" not in proxy.log  # what the proxy says of a second answer


def rolled_out_in_turn(loads: Loads, machines: list[Machine]) -> None:
    """Nobody notices but by the answers."""
    with loads.phase("calm") as got:
        time.sleep(FAULT_S)
    assert set(got.http) == set(got.grpc) == {"first"}
    with loads.phase("new module, in turn") as got:
        for machine in machines:
            machine.roll_out(SECOND)
    assert set(got.http) | set(got.grpc) == {"first", "second"}
    with loads.phase("after it") as got:
        time.sleep(FAULT_S)
    assert set(got.http) == set(got.grpc) == {"second"}


def killed(loads: Loads, machine: Machine) -> None:
    """The proxy's failure mode answers until it has left the connection; the client asks another agent."""
    with loads.phase("one killed") as got:
        machine.kill()
        time.sleep(FAULT_S)
    assert set(got.http) <= {"second", "503", "504"}
    assert got.http["503"] + got.http["504"] <= MOST_FAILED
    assert set(got.grpc) == {"second"}
    machine.start()


def hangs(loads: Loads, machine: Machine) -> None:
    """Timeouts do not make the proxy leave a connection: the balancer cuts it."""
    with loads.phase("one hangs") as got:
        machine.hang()
        time.sleep(NOTICED_S + FAULT_S)
    assert got.http["504"] > 0
    assert set(got.http) <= {"second", "503", "504"}
    assert set(got.grpc) == {"second"}
    machine.go_on()


def slow(loads: Loads, machine: Machine) -> None:
    """Its agent interrupts the module, and answers by the fail-open rule."""
    with loads.phase("one slow") as got:
        machine.roll_out(ENDLESS)
        time.sleep(FAULT_S)
        machine.roll_out(SECOND)
    assert set(got.http) <= {"second", "500", "503", "504"}
    assert set(got.grpc) == {"second", "500"}


def restarted_in_turn(loads: Loads, machines: list[Machine]) -> None:
    """Without waiting, the proxy ends without a connection: its failure mode answers."""
    with loads.phase("restarted, in turn") as got:
        for machine in machines:
            machine.restart()
            if IS_LONG:
                time.sleep(RECONNECT_S)
    assert set(got.http) <= {"second", "503", "504"}
    assert set(got.grpc) == {"second"}
    if IS_LONG:
        assert got.http["503"] + got.http["504"] <= len(machines) * MOST_FAILED


def all_killed(loads: Loads, machines: list[Machine]) -> None:
    """The proxy comes back by itself, with this circuit breaker; by default it takes minutes."""
    with loads.phase("all killed") as got:
        for machine in machines:
            machine.kill()
        for machine in machines:
            machine.start()
        back_since = len(loads.http.answered)
        until(lambda: any(answer.what == "second" for answer in loads.http.answered[back_since:]))
    assert got.http["503"] > 0
    assert set(got.http) <= {"second", "503", "504"}
    assert set(got.grpc) == {"second"}


def test_the_guide_has_this_circuit_breaker() -> None:
    guide = (ROOT / "docs" / "many-machines.md").read_text()
    assert " ".join(BREAKER.split()) in " ".join(guide.split())
