"""What v2 proxies are told unasked: the numbers of /metrics, to each that reads, and the agent's health."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvloop

from sentinel_wasm import metrics
from sentinel_wasm.agent import Agent
from sentinel_wasm.client import Client, ClientV2, request_headers
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.module import Module
from sentinel_wasm.metrics import Samples
from sentinel_wasm.protocol import handshake, metrics_report
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType
from sentinel_wasm.server import reports
from sentinel_wasm.server.connection import Connection
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.server.status import Status
from sentinel_wasm.settings import Settings

from .guest import wat

pytestmark = pytest.mark.parallel

ALLOW = wat.module(wat.says('{"decision":"allow"}'))
TRAP = wat.module(wat.hook("unreachable"))
SETTINGS = Settings(module=Path("a.wasm"), pool_size=1, timeout_ms=2000)
PATIENCE_S = 10.0

# A proxy of another process: it shakes hands, says so, and prints the type of each frame that comes.
OTHER_PROXY = """
import sys
from pathlib import Path
from sentinel_wasm.client import Client, ClientV2
with ClientV2(Path(sys.argv[1])) as client:
    while True:
        print("ready", flush=True)
        Client.receive(client)
        print(client.frame_type, flush=True)
"""


def module(text: str) -> Module:
    return Module(make_engine(), wat.binary(text), "a.wasm")


class Running:
    """An agent in this process, which sends reports `every` so many seconds."""

    def __init__(self, serving: Serving, status: Status, socket: Path) -> None:
        self.serving = serving
        self.status = status
        self.socket = socket

    async def proxy(self) -> ClientV2:
        return await asyncio.to_thread(ClientV2, self.socket)

    async def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(directory: Path, every: float, text: str = ALLOW) -> AsyncIterator[Running]:
    agent = Agent(SETTINGS, module(text))
    loop = asyncio.get_running_loop()
    serving = Serving(SETTINGS, agent)
    agent.attach(loop, serving.tell_health)
    status = Status(serving)
    path = directory / "s"
    server = await loop.create_unix_server(serving.connection, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "INTERVAL_S", every)
        sending = loop.create_task(reports.send_reports(serving, status, {}))
        try:
            yield Running(serving, status, path)
        finally:
            sending.cancel()
            server.close()
            await serving.drain()
            agent.close()


async def received(client: ClientV2) -> dict[str, Any]:
    """The next frame, which must be a report."""
    payload: dict[str, Any] = orjson.loads(await asyncio.to_thread(Client.receive, client))
    assert client.frame_type == FrameType.METRICS_REPORT
    return payload


def samples_of(report: dict[str, Any]) -> Samples:
    """What /metrics would say of these numbers."""
    found: Samples = {}

    def put(name: str, value: float, labels: dict[str, str]) -> None:
        found[metrics.series(name.removeprefix("sentinel_wasm_"), **labels)] = value

    for counter in report["counters"]:
        assert type(counter["value"]) is int
        put(counter["name"], counter["value"], counter["labels"])
    for gauge in report["gauges"]:
        put(gauge["name"], gauge["value"], gauge["labels"])
    for histogram in report["histograms"]:
        counts = [bucket["count"] for bucket in histogram["buckets"]]
        bounds = [bucket["le"] for bucket in histogram["buckets"]]
        assert bounds[:-1] == sorted(bounds[:-1])
        assert bounds[-1] == "+Inf"
        assert all(type(count) is int for count in [*counts, histogram["count"]])
        for le, count in zip(bounds, counts, strict=True):
            text = le if le == "+Inf" else f"{le:.12g}"
            put(f"{histogram['name']}_bucket", count, {**histogram["labels"], "le": text})
        put(f"{histogram['name']}_count", histogram["count"], histogram["labels"])
        put(f"{histogram['name']}_sum", histogram["sum"], histogram["labels"])
    return found


def test_a_report_has_the_numbers_of_the_page(tmp_path: Path) -> None:
    allowed = metrics.series("decisions_total", hook="on_request_headers", decision="allow")

    async def talk() -> None:
        async with running(tmp_path, every=0.2) as agent:
            with await agent.proxy() as client:
                for number in range(3):
                    client.send_event(EventKind.REQUEST_HEADERS, request_headers(f"id-{number}"))
                await agent.until(lambda: agent.status.samples()[allowed] == 3)
                report: dict[str, Any] = {}
                while not report or samples_of(report)[allowed] < 3:
                    payload = await asyncio.to_thread(Client.receive, client)
                    if client.frame_type == FrameType.METRICS_REPORT:
                        report = orjson.loads(payload)
                shown = agent.status.samples()
        assert report["agent_id"] == handshake.AGENT_ID == client.handshake["capabilities"]["agent_id"]
        assert client.handshake["capabilities"]["features"]["metrics_export"] is True
        assert report["interval_ms"] == 200
        assert abs(report["timestamp_ms"] - time.time_ns() // 1_000_000) < 10_000
        found = samples_of(report)
        assert found[metrics.series("event_duration_seconds_bucket", le="+Inf")] == 3
        sent = metrics.series("reports_sent_total")
        assert found.pop(sent) < shown.pop(sent)
        assert found == {name: value for name, value in shown.items() if not name.startswith("process_")}

    uvloop.run(talk())


def test_a_workers_numbers_are_told_from_those_of_others() -> None:
    samples = {
        metrics.series("errors_total", kind="trap"): 2,
        metrics.series("module_info", file='a"b\\c\n'): 1,
        **metrics.histogram("queue_wait_seconds", (500,), ((1, 2), 5)),
    }
    payload = orjson.dumps(metrics_report.report(samples, 1, 2, {"worker": "3"}))
    report = orjson.loads(payload)
    for kind in ("counters", "gauges", "histograms"):
        (entry,) = report[kind]
        assert entry["labels"]["worker"] == "3"
    assert report["gauges"][0]["labels"]["file"] == 'a"b\\c\n'
    assert report["counters"][0]["labels"]["kind"] == "trap"


def test_each_module_of_several_has_histograms_of_its_own() -> None:
    samples = {
        **metrics.histogram("queue_wait_seconds", (500,), ((1, 2), 5), module="one"),
        **metrics.histogram("queue_wait_seconds", (500,), ((3, 4), 6), module="two"),
    }
    assert samples_of(metrics_report.report(samples, 1, 2)) == samples


def test_of_a_proxys_connections_one_gets_the_report(tmp_path: Path) -> None:
    async def talk() -> None:
        async with running(tmp_path, every=0.1) as agent:
            with contextlib.ExitStack() as opened:
                clients = [opened.enter_context(await agent.proxy()) for _ in range(4)]
                command = [sys.executable, "-c", OTHER_PROXY, str(agent.socket)]
                other = opened.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
                opened.callback(other.kill)
                assert other.stdout is not None
                for line in ("ready", str(int(FrameType.METRICS_REPORT))):
                    said = asyncio.to_thread(other.stdout.readline)
                    assert await asyncio.wait_for(said, PATIENCE_S) == f"{line}\n"
                await agent.until(lambda: agent.serving.reports_sent >= 2)
                made_ms = [report["timestamp_ms"] for client in clients for report in there(client)]
                # Those of one turn have the same time.
                assert len(set(made_ms)) == len(made_ms) >= 1

    uvloop.run(talk())


def there(client: ClientV2) -> Iterator[dict[str, Any]]:
    """The frames that have come."""
    client.sock.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            yield orjson.loads(Client.receive(client))


def test_all_connections_of_a_process_that_cannot_be_seen_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says 0 for a process of another container, which is not to be had here: so `peer` is set."""
    monkeypatch.setattr(Connection, "peer", 0)

    async def talk() -> None:
        async with running(tmp_path, every=0.1) as agent:
            with await agent.proxy() as one, await agent.proxy() as other:
                made_ms = (await received(other))["timestamp_ms"]
                while (same_ms := (await received(one))["timestamp_ms"]) < made_ms:
                    pass
                assert same_ms == made_ms

    uvloop.run(talk())


def test_nothing_is_written_to_a_client_that_does_not_read(tmp_path: Path) -> None:
    async def talk() -> None:
        async with running(tmp_path, every=0.002) as agent:
            with await agent.proxy() as client:
                (connection,) = agent.serving.connections
                await agent.until(lambda: not connection.takes_reports)
                sent = agent.serving.reports_sent
                assert 2 < sent < 200
                await asyncio.sleep(0.1)
                assert agent.serving.reports_sent == sent
                for _ in range(sent + 1):
                    await received(client)

    uvloop.run(talk())


def test_v1_proxies_and_those_before_the_handshake_get_none(tmp_path: Path) -> None:
    async def talk() -> None:
        async with running(tmp_path, every=0.01) as agent:
            reader, writer = await asyncio.open_unix_connection(agent.socket)
            await agent.until(lambda: len(agent.serving.connections) == 1)
            await asyncio.sleep(0.1)
            assert agent.serving.reports_sent == 0
            writer.close()
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""

    uvloop.run(talk())


def test_a_defect_costs_one_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        async with running(tmp_path, every=0.05) as agent:
            with await agent.proxy() as client:
                with monkeypatch.context() as patch:
                    asked = asyncio.Event()

                    def breaks() -> Samples:
                        asked.set()
                        raise ZeroDivisionError

                    patch.setattr(agent.status, "samples", breaks)
                    await asyncio.wait_for(asked.wait(), PATIENCE_S)
                await received(client)

    uvloop.run(talk())


def test_our_own_client_passes_over_reports(tmp_path: Path) -> None:
    async def talk() -> None:
        async with running(tmp_path, every=0.001) as agent:
            with await agent.proxy() as client:
                await agent.until(lambda: agent.serving.reports_sent >= 2)
                answer = await asyncio.to_thread(client.ask, EventKind.REQUEST_HEADERS, request_headers("a"))
                assert answer["decision"] == "allow"

    uvloop.run(talk())


def test_another_agent_has_a_health_of_its_own(tmp_path: Path) -> None:
    async def talk() -> None:
        async with running(tmp_path, every=60, text=TRAP) as agent:
            with await agent.proxy() as client:

                def fail() -> int:
                    """Until the proxy is told of it; gives what it is told."""
                    for _ in range(100):
                        client.send_event(EventKind.REQUEST_HEADERS, request_headers("a"))
                        payload = orjson.loads(client.receive())
                        if client.frame_type == FrameType.HEALTH_STATUS:
                            client.receive()
                            return int(payload["state"])
                    raise AssertionError("it is told nothing")

                assert await asyncio.to_thread(fail) == 2
                assert await asyncio.to_thread(fail) == 4
                other = Agent(SETTINGS, module(ALLOW))
                old = agent.serving.exchange(other)
                assert orjson.loads(await asyncio.to_thread(client.receive)) == {"state": 1}
                # What the one before still goes through is not this one's.
                assert old.health == "unhealthy"
                agent.serving.tell_health()
                client.send_event(EventKind.REQUEST_HEADERS, request_headers("a"))
                assert orjson.loads(await asyncio.to_thread(client.receive))["decision"] == "allow"
                agent.serving.exchange(old)
                other.close()

    uvloop.run(talk())


def test_who_was_told_that_we_drain_is_not_told_otherwise(tmp_path: Path) -> None:
    async def talk() -> None:
        async with running(tmp_path, every=60) as agent:
            with await agent.proxy() as client:
                (connection,) = agent.serving.connections
                connection.waiting += 1  # or it would close at once
                connection.drain()
                connection.send_health("healthy")
                connection.waiting -= 1
                connection.drain()
                assert orjson.loads(await asyncio.to_thread(client.receive)) == {"state": 3}
                with pytest.raises(ConnectionError):
                    await asyncio.to_thread(client.receive)

    uvloop.run(talk())
