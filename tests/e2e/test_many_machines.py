"""Four agents over gRPC, of which one is killed, one hangs, one is slow, and all are upgraded: every event has an answer.

Two loads at once: HTTP clients of the real proxy, which has the agents behind HAProxy and answers by its failure mode
where it has no agent; and a gRPC client that balances by itself and asks the next agent where one has not answered.

MANY_MACHINES says for how long each fault lasts (s), and has the proxy come back to each agent between two restarts.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
import wasmtime

from sentinel_wasm.grpc import agent_pb2 as pb

from ..grpc.client import request_headers
from ..wat import module
from .balancer import Balancer
from .fleet import Machine, fleet
from .proxy import TIMEOUT, ZENTINEL, RunningProxy, start_proxy
from .upstream import Upstream

pytestmark = pytest.mark.e2e

FAULT_S = float(os.environ.get("MANY_MACHINES", "1"))
IS_LONG = "MANY_MACHINES" in os.environ
RECONNECT_S = 11.0  # the proxy tries once in 10 s, one connection at a time

PROXY_TIMEOUT_MS = 500
AGENT_TIMEOUT_MS = 200
# What may pass on a busy machine between a deadline and the client's seeing of it.
LATE_S = 5.0

ATTEMPT_S = 0.5
ATTEMPTS = 8
HTTP_CLIENTS = 2
GRPC_EVENTS = 4


def tagging(version: str) -> bytes:
    """Allows, and says which version did, to the client and to the upstream."""
    answer = {"decision": "allow", "tags": [version], "add_request_headers": {"X-Version": version}}
    return bytes(wasmtime.wat2wasm(module(on_request_headers=json.dumps(answer))))


FIRST, SECOND = tagging("first"), tagging("second")
# Interrupted at the agent's --timeout-ms, at every event.
ENDLESS = bytes(
    wasmtime.wat2wasm(
        module('(func (export "on_request_headers") (param i32 i32) (result i64) (loop $on (br $on)) unreachable)')
    )
)


class Answered(NamedTuple):
    """One event's answer: what it was, and how long it took."""

    what: str
    seconds: float


class HttpClients:
    """Each asks the proxy for one request after the other."""

    def __init__(self, port: int) -> None:
        self.answered: list[Answered] = []
        self.errors: list[str] = []
        self._port = port
        self._numbers = count()
        self._stops = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(HTTP_CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stops.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PROXY_TIMEOUT_MS / 1000 + LATE_S)
        try:
            while not self._stops.is_set():
                began = time.monotonic()
                connection.request("GET", f"/{next(self._numbers)}", headers={"User-Agent": "e2e"})
                response = connection.getresponse()
                body = response.read()
                what = str(response.status)
                if response.status == 200:
                    what = json.loads(body)["headers"]["x-version"]
                self.answered.append(Answered(what, time.monotonic() - began))
                self._stops.wait(0.02)
        except (OSError, http.client.HTTPException) as error:
            self.errors.append(repr(error))
        finally:
            connection.close()


# What the channel does by itself: it leaves out agents that it cannot reach, and asks another where a call did not get through.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


class GrpcClient:
    """Balances by itself, and asks again where an agent that hangs has not answered: that no service config can say."""

    def __init__(self, ports: list[int]) -> None:
        self.answered: list[Answered] = []
        self.errors: list[str] = []
        self.retries = 0
        self._target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        self._numbers = count()
        self._stops = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stops.set()
        self._thread.join()

    async def _run(self) -> None:
        options = [
            ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        async with grpc.aio.insecure_channel(self._target, options) as channel:
            ask = channel.unary_unary(
                "/zentinel.agent.v2.AgentServiceV2/ProcessEvent",
                request_serializer=pb.ProxyToAgent.SerializeToString,
                response_deserializer=pb.AgentToProxy.FromString,
            )
            await asyncio.gather(*(self._ask_on(ask) for _ in range(GRPC_EVENTS)))

    async def _ask_on(self, ask: grpc.aio.UnaryUnaryMultiCallable) -> None:
        while not self._stops.is_set():
            identity = f"event-{next(self._numbers)}"
            began = time.monotonic()
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    answer = await ask(request_headers(identity), timeout=ATTEMPT_S, wait_for_ready=True)
                except grpc.aio.AioRpcError as error:
                    if attempt == ATTEMPTS:
                        self.errors.append(f"{identity}: {error.code()}: {error.details()}")
                    self.retries += 1
                    continue
                response = answer.response
                if response.correlation_id != identity:
                    self.errors.append(f"{identity} got the answer of {response.correlation_id}")
                what = response.audit.tags[0] if response.HasField("allow") else str(response.block.status)
                self.answered.append(Answered(what, time.monotonic() - began))
                break
            await asyncio.sleep(0.02)


class Loads:
    """Both, and what they got in each phase."""

    def __init__(self, proxy: RunningProxy, machines: list[Machine]) -> None:
        self.http = HttpClients(proxy.port)
        self.grpc = GrpcClient([machine.at.port for machine in machines])

    @contextmanager
    def phase(self, name: str) -> Iterator[list[Counter[str]]]:
        """Gives the answers of each load by kind, at its end."""
        before = [len(load.answered) for load in (self.http, self.grpc)]
        retries = self.grpc.retries
        answers: list[Counter[str]] = []
        yield answers
        for load, start in zip((self.http, self.grpc), before, strict=True):
            answered = load.answered[start:]
            answers.append(Counter(answer.what for answer in answered))
            longest_ms = max((answer.seconds for answer in answered), default=0) * 1000
            print(f"{name:>24} {type(load).__name__:>12}: {dict(answers[-1])}, longest {longest_ms:.0f} ms")
        print(f"{name:>24} asked again: {self.grpc.retries - retries}")


def test_every_event_has_an_answer(tmp_path: Path) -> None:
    ZENTINEL.binary()  # skips before anything starts
    upstream = Upstream()
    options = ("--timeout-ms", str(AGENT_TIMEOUT_MS))
    with fleet(tmp_path, FIRST, *options) as machines, Balancer(tmp_path, [m.at for m in machines]) as balancer:
        transport = {'unix-socket "/tmp/sentinel-wasm.sock"': f'grpc "http://127.0.0.1:{balancer.port}"'}
        events = {' "request_body" "response_headers" "response_body"': ""}
        timeout = {TIMEOUT: TIMEOUT.replace("50", str(PROXY_TIMEOUT_MS))}
        proxy = start_proxy(ZENTINEL, tmp_path, upstream.port, Path(), {**transport, **events, **timeout})
        try:
            loads = Loads(proxy, machines)
            loads.http.start()
            loads.grpc.start()
            try:
                faults(loads, machines)
            finally:
                loads.http.stop()
                loads.grpc.stop()
        finally:
            proxy.kill()
            upstream.close()


def faults(loads: Loads, machines: list[Machine]) -> None:
    with loads.phase("calm"):
        time.sleep(FAULT_S)
    with loads.phase("new module, in turn"):
        for machine in machines:
            machine.roll_out(SECOND)
    with loads.phase("after it"):
        time.sleep(FAULT_S)
    with loads.phase("one killed"):
        machines[0].kill()
        time.sleep(FAULT_S)
    machines[0].start()
    with loads.phase("one hangs"):
        machines[1].hang()
        time.sleep(FAULT_S + 1)
    machines[1].go_on()
    with loads.phase("one slow"):
        machines[2].roll_out(ENDLESS)
        time.sleep(FAULT_S)
        machines[2].roll_out(SECOND)
    with loads.phase("restarted, in turn"):
        for machine in machines:
            machine.restart()
            time.sleep(RECONNECT_S * 4 if IS_LONG else 0.2)
    print(loads.http.errors, loads.grpc.errors)
