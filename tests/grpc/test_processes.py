"""gRPC beside the agent's life: its end, workers, upgrades, reloads, a module that keeps failing."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ..conftest import EXAMPLES, BuildWat, StartAgent, until
from ..e2e.modules import TRAPS_ON_TRAP, slow_or_denies
from ..e2e.proxy import free_port
from ..guest.wat import binary
from ..upgrading import Upgrading
from ..wat import module
from .client import PATIENCE_S, STREAM_S, Client, request_headers

pytestmark = pytest.mark.parallel

SECURITY = EXAMPLES / "c" / "security.wasm"
BLOCK = module(on_request_headers='{"decision":"block","status":451}')


def test_a_signal_ends_the_agent_when_all_is_answered(start_agent: StartAgent, build_wat: BuildWat) -> None:
    port = free_port()
    agent = start_agent(build_wat(slow_or_denies()), "--grpc", f":{port}", "--dispatch", "threads")
    with Client(port) as client:
        stream, idle = client.stream(), client.stream()
        health = health_pb2_grpc.HealthStub(client.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=STREAM_S)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        stream.say(request_headers("last", "/slow"))
        stream.ask(request_headers("before"))
        start = time.monotonic()
        agent.process.send_signal(signal.SIGTERM)
        assert stream.hear().health.state == 3
        assert stream.hear().response.correlation_id == "last"
        assert idle.hear().health.state == 3
        for ended in (stream, idle):
            with pytest.raises(StopIteration):
                ended.hear()
        assert agent.process.wait(15) == 0
        assert time.monotonic() - start < 10
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert "Traceback" not in agent.log


def test_workers_share_the_port(start_agent: StartAgent) -> None:
    port = free_port()
    agent = start_agent(SECURITY, "--grpc", f":{port}", "--workers", "2")
    until(lambda: {line["worker"] for line in agent.lines("gRPC endpoint")} == {1, 2})
    for number in range(8):
        with Client(port) as client:
            assert client.stream().ask(request_headers(str(number))).correlation_id == str(number)


def test_an_upgrade_ends_streams_and_the_next_process_has_the_port(start_agent: StartAgent) -> None:
    port = free_port()
    agent = start_agent(SECURITY, "--grpc", f":{port}")
    with Upgrading(agent) as upgrading, Client(port) as client:
        stream = client.stream()
        stream.ask(request_headers("before"))
        upgrading.upgrade()
        assert stream.hear().health.state == 3
        with pytest.raises(StopIteration):
            stream.hear()
        # grpcio connects again by itself.
        assert client.stream().ask(request_headers("after")).correlation_id == "after"


def test_a_reload_answers_the_next_event_of_a_stream(
    start_agent: StartAgent, build_wat: BuildWat, tmp_path: Path
) -> None:
    port, path = free_port(), tmp_path / "module.wasm"
    path.write_bytes(SECURITY.read_bytes())
    agent = start_agent(path, "--grpc", f":{port}")
    with Client(port) as client:
        stream = client.stream()
        assert stream.ask(request_headers("before")).HasField("allow")
        path.write_bytes(binary(BLOCK))
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for_log("reloaded")
        assert stream.ask(request_headers("after")).block.status == 451


def test_proxies_and_the_health_service_hear_of_a_failing_module(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    port = free_port()
    start_agent(build_wat(TRAPS_ON_TRAP), "--grpc", f":{port}")
    with Client(port) as client:
        stream = client.stream()
        states = []
        for number in range(100):
            stream.say(request_headers(str(number), "/trap"))
            while (message := stream.hear()).WhichOneof("message") == "health":
                states.append(message.health.state)
            assert message.response.audit.tags == ["wasm-error"]
            if states:
                break
        assert states[0] in (2, 4)
        health = health_pb2_grpc.HealthStub(client.channel)
        status = health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S).status
        assert status == health_pb2.HealthCheckResponse.NOT_SERVING
        # Who comes later is told too.
        assert client.stream().hear().health.state in (2, 4)
