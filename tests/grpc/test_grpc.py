"""Events over gRPC, by a client in Python."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from sentinel_wasm.grpc import agent_pb2 as pb

from ..conftest import EXAMPLES, RunningAgent, agents
from ..e2e.proxy import free_port
from .client import PACKAGES, Client, request_headers

pytestmark = pytest.mark.parallel

SECURITY = EXAMPLES / "c" / "security.wasm"
SCANNER = {"user-agent": ["sqlmap/1.7"]}


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[RunningAgent]:
    with agents(tmp_path_factory) as start:
        yield start(SECURITY, "--grpc", f":{port}")


@pytest.mark.parametrize("package", PACKAGES)
def test_an_event_alone(agent: RunningAgent, port: int, package: str) -> None:
    with Client(port, package=package) as client:
        response = client.ask(request_headers("a1", headers=SCANNER)).response
    assert response.correlation_id == "a1"
    assert response.block == pb.BlockDecision(status=403, body="Forbidden")
    assert response.audit.rule_ids == ["SEC-020"]


def test_a_stream(agent: RunningAgent, port: int) -> None:
    with Client(port) as client:
        stream = client.stream()
        assert stream.shaken.success
        for number in range(50):
            response = stream.ask(request_headers(f"s{number}"))
            assert (response.correlation_id, response.WhichOneof("decision")) == (f"s{number}", "allow")
        stream.end()
        with pytest.raises(StopIteration):
            stream.hear()
        assert stream.call.code() is grpc.StatusCode.OK
