"""Two loads on agents at once: HTTP through the real proxy, and gRPC by a client that balances by itself."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import grpc

from sentinel_wasm.grpc import agent_pb2 as pb

from ..grpc.client import request_headers
from .fleet import Machine
from .proxy import RunningProxy

if TYPE_CHECKING:
    from typing_extensions import Self

HTTP_CLIENTS = 2
GRPC_EVENTS = 4  # at once
PAUSE_S = 0.02  # between two events of one client
ATTEMPT_S = 1.0
ATTEMPTS = 8
PATIENCE_S = 10.0  # for a response: far past the proxy's timeout, so that it comes or hangs


class Answered(NamedTuple):
    """One event's answer: what it was, when the event began, and how long it took."""

    what: str
    began: float
    seconds: float


class Phase(NamedTuple):
    """Answers by what they were: the version of the module that gave them, or a status."""

    http: Counter[str]
    grpc: Counter[str]


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
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        try:
            while not self._stops.is_set():
                began = time.monotonic()
                connection.request("GET", f"/{next(self._numbers)}", headers={"User-Agent": "e2e"})
                response = connection.getresponse()
                body = response.read()
                what = str(response.status)
                if response.status == 200:
                    what = json.loads(body)["headers"]["x-version"]
                self.answered.append(Answered(what, began, time.monotonic() - began))
                self._stops.wait(PAUSE_S)
        except (OSError, http.client.HTTPException) as error:
            self.errors.append(repr(error))
        finally:
            connection.close()


# The channel itself leaves out agents that it cannot reach, and asks another where a call was lost.
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
    """Asks the next agent where one has not answered in time, too: that no service config can say."""

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
                self.answered.append(Answered(what, began, time.monotonic() - began))
                break
            await asyncio.sleep(PAUSE_S)


class Loads:
    """Both, until the end of the block: then every event has been answered."""

    def __init__(self, proxy: RunningProxy, machines: list[Machine]) -> None:
        self.http = HttpClients(proxy.port)
        self.grpc = GrpcClient([machine.at.port for machine in machines])

    def __enter__(self) -> Self:
        self.http.start()
        self.grpc.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.stop()
        self.grpc.stop()
        if error is None:
            assert self.http.errors == []
            assert self.grpc.errors == []

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """The answers to what began and ended in it are there at the end, and are printed."""
        phase = Phase(Counter(), Counter())
        since, retries = time.monotonic(), self.grpc.retries
        yield phase
        for kind, answered in zip(phase._fields, (self.http.answered, self.grpc.answered), strict=True):
            within = [answer for answer in answered if answer.began >= since]
            self._sum_up(f"{name}, {kind}", within, getattr(phase, kind))
        print(f"{name}, grpc: asked again {self.grpc.retries - retries} times")

    def _sum_up(self, title: str, answered: list[Answered], kinds: Counter[str]) -> None:
        assert answered, f"{title}: no answer"
        kinds.update(answer.what for answer in answered)
        longest_ms = max(answer.seconds for answer in answered) * 1000
        print(f"{title}: {dict(kinds)}, longest {longest_ms:.0f} ms")
