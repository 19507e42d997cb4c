"""Events over gRPC: what is answered, what is not, and what ends a call."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sentinel_wasm.grpc import agent_pb2 as pb
from sentinel_wasm.protocol.handshake import AGENT_ID

from ..scraping import Scraped
from .client import PACKAGES, PATIENCE_S, Client, request_headers
from .conftest import Served

pytestmark = pytest.mark.parallel

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.port) as client:
        yield client


def body(identity: str, data: bytes) -> pb.BodyChunkEvent:
    return pb.BodyChunkEvent(correlation_id=identity, data=data, is_last=True, total_size=len(data))


# What is answered


@pytest.mark.parametrize("package", PACKAGES)
def test_an_event_alone(served: Served, package: str) -> None:
    with Client(served.port, package=package) as client:
        response = client.ask(request_headers("a1", "/deny")).response
        assert response.correlation_id == "a1"
        assert response.block.status == 403
        assert client.ask(request_headers("a2", "/slow")).response.WhichOneof("decision") == "allow"


def test_a_stream(client: Client) -> None:
    stream = client.stream()
    assert stream.shaken.success
    assert stream.shaken.capabilities.agent_id == AGENT_ID
    assert sorted(stream.shaken.capabilities.supported_events) == list(range(1, 9))
    for number in range(50):
        uri = "/deny" if number % 2 else "/"
        response = stream.ask(request_headers(f"s{number}", uri))
        assert response.correlation_id == f"s{number}"
        assert response.WhichOneof("decision") == ("block" if number % 2 else "allow")
    stream.end()
    with pytest.raises(StopIteration):
        stream.hear()
    assert stream.call.code() is grpc.StatusCode.OK


def test_a_slow_answer_holds_up_no_other_and_the_stream_ends_after_it(client: Client) -> None:
    stream = client.stream()
    stream.say(request_headers("slow", "/slow"))
    stream.say(request_headers("quick"))
    stream.end()
    assert [stream.hear().response.correlation_id for _ in range(2)] == ["quick", "slow"]
    with pytest.raises(StopIteration):
        stream.hear()


def test_every_kind_of_event_has_one_answer(client: Client) -> None:
    stream = client.stream()
    other = pb.ProxyToAgent(response_headers=pb.ResponseHeadersEvent(correlation_id="r", status_code=200))
    assert stream.ask(other).response_headers == [pb.HeaderOp(set=pb.Header(name="X-A", value='"1"'))]
    assert stream.ask(pb.ProxyToAgent(request_body_chunk=body("b", b"\xff"))).block.status == 403
    assert stream.ask(pb.ProxyToAgent(response_body_chunk=body("c", b"\xff"))).HasField("allow")
    for event in (
        pb.ProxyToAgent(request_complete=pb.RequestCompleteEvent(correlation_id="d", error="x")),
        pb.ProxyToAgent(
            websocket_frame=pb.WebSocketFrameEvent(correlation_id="d", frame_type=2, payload=b"\xff")
        ),
        pb.ProxyToAgent(guardrail=pb.GuardrailInspectEvent(correlation_id="d", content="é")),
        request_headers("d", headers={"näme": ["wért"], "x": ["\x01"]}),
    ):
        assert stream.ask(event).correlation_id == "d"
        assert client.ask(event).response.HasField("allow")


def test_pings_are_answered_and_cancels_and_configurations_are_not(client: Client, served: Served) -> None:
    stream = client.stream()
    stream.say(pb.ProxyToAgent(cancel=pb.CancelRequest(correlation_id="a")))
    stream.say(pb.ProxyToAgent(configure=pb.ConfigureEvent(config_json='{"a":1}', is_initial=True)))
    stream.say(pb.ProxyToAgent(ping=pb.Ping(sequence=7, timestamp_ms=9)))
    pong = stream.hear().pong
    assert (pong.sequence, pong.ping_timestamp_ms) == (7, 9)
    assert pong.timestamp_ms > 1_700_000_000_000
    assert served.agent.wait_for_log("configured by the proxy")
    assert client.ask(pb.ProxyToAgent(configure=pb.ConfigureEvent())) == pb.AgentToProxy()


def test_a_proxy_of_other_versions_is_told_so(client: Client) -> None:
    answer = client.ask(pb.ProxyToAgent(handshake=pb.HandshakeRequest(supported_versions=[1, 3])))
    assert not answer.handshake.success
    assert answer.handshake.error == "no common version: this agent speaks 2, the proxy [1, 3]"


# What gRPC cannot carry


def test_what_is_dropped_is_counted_and_said_once(client: Client, served: Served) -> None:
    def dropped() -> dict[str, float]:
        parts = ("routing_metadata", "request_body_mutation", "response_body_mutation")
        scraped = Scraped(served.agent)
        return {part: scraped.value("grpc_dropped_total", part=part) for part in parts}

    before = dropped()
    for number in range(3):
        client.ask(pb.ProxyToAgent(response_headers=pb.ResponseHeadersEvent(correlation_id="r")))
        client.ask(pb.ProxyToAgent(request_body_chunk=body(f"b{number}", b"a" * 10_000)))
        # Over a Unix socket its answer would send the body back.
        client.ask(pb.ProxyToAgent(response_body_chunk=body("c", b"a" * 10_000)))
    after = dropped()
    assert {part: after[part] - before[part] for part in after} == {
        "routing_metadata": 3,
        "request_body_mutation": 3,
        "response_body_mutation": 0,
    }
    said = served.agent.lines("gRPC cannot carry a part of an answer; said once")
    assert sorted(line["part"] for line in said) == ["request_body_mutation", "routing_metadata"]


# What ends a call


NO_ID = request_headers("")
DEEP = pb.ProxyToAgent(configure=pb.ConfigureEvent(config_json="[" * 300 + "]" * 300))
BROKEN = {
    "not a ProxyToAgent: broken protobuf": b"\xff\xff",
    "the message is none of those that ProxyToAgent has": b"\x62\x00",
    "request_headers has no correlation_id": NO_ID.SerializeToString(),
    "request_body_chunk has no correlation_id": b"\x1a\x00",
    "config_json is not JSON": b"\x52\x03\x0a\x01{",
    "config_json cannot be passed on: Recursion limit": DEEP.SerializeToString(),
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_message_that_cannot_be_read_ends_its_call_only(client: Client, served: Served, why: str) -> None:
    other = client.stream()
    stream = client.stream()
    stream.say(BROKEN[why])
    for ask in (stream.hear, lambda: client.ask(BROKEN[why])):
        with pytest.raises(grpc.RpcError) as raised:
            ask()
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert why in raised.value.details()
    served.agent.wait_for_log(why)
    assert other.ask(request_headers("o")).correlation_id == "o"


def test_text_that_is_not_utf_8_is_broken(client: Client) -> None:
    data = request_headers("a", headers={"name": ["value"]}).SerializeToString()
    with pytest.raises(grpc.RpcError, match="broken protobuf"):
        client.ask(data.replace(b"value", b"val\xffe"))


def test_bodies_of_5_mib_are_taken_and_of_11_are_not(client: Client) -> None:
    assert client.ask(pb.ProxyToAgent(response_body_chunk=body("b", bytes(5 << 20)))).HasField("response")
    with pytest.raises(grpc.RpcError) as raised:
        client.ask(pb.ProxyToAgent(response_body_chunk=body("b", bytes(11 << 20))))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_client_that_goes_away_is_no_trouble(served: Served) -> None:
    for _ in range(3):
        with Client(served.port) as client:
            stream = client.stream()
            stream.say(request_headers("gone", "/slow"))
            stream.ask(request_headers("a"))
        with Client(served.port) as client:
            client.ask(request_headers("b", "/slow"))
    assert "Traceback" not in served.agent.log
    assert served.agent.lines("internal error, please report it") == []


# The other services


def test_the_control_stream_refuses_what_is_for_proxies(client: Client) -> None:
    method = client.channel.stream_stream(f"/{PACKAGES[0]}.AgentServiceV2/ControlStream")
    said = [
        pb.AgentControl(health=pb.HealthStatus(state=1)),
        pb.AgentControl(config_update=pb.ConfigUpdateRequest(request_id="u1")),
    ]
    answers = list(method((message.SerializeToString() for message in said), timeout=PATIENCE_S))
    assert len(answers) == 1
    answer = pb.ProxyControl.FromString(answers[0]).config_response
    assert (answer.request_id, answer.accepted) == ("u1", False)


def test_a_broken_control_message_ends_its_stream(client: Client) -> None:
    method = client.channel.stream_stream(f"/{PACKAGES[0]}.AgentServiceV2/ControlStream")
    with pytest.raises(grpc.RpcError, match="not a AgentControl"):
        list(method(iter([b"\xff"]), timeout=PATIENCE_S))


@pytest.mark.parametrize("service", ["", *(f"{package}.AgentServiceV2" for package in PACKAGES)])
def test_the_health_service(client: Client, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(client.channel)
    assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_S).status == SERVING


def test_the_health_of_a_service_that_is_not_there(client: Client) -> None:
    stub = health_pb2_grpc.HealthStub(client.channel)
    with pytest.raises(grpc.RpcError) as raised:
        stub.Check(health_pb2.HealthCheckRequest(service="x"), timeout=PATIENCE_S)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
