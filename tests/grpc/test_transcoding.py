"""Messages made JSON and back: the compiled way and the plain one give the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_wasm import metrics
from sentinel_wasm._protobuf import header_event
from sentinel_wasm.decision import (
    Audit,
    Block,
    BodyMutation,
    Challenge,
    Close,
    Decision,
    Drop,
    HeaderOp,
    Redirect,
)
from sentinel_wasm.grpc import agent_pb2 as pb
from sentinel_wasm.grpc import reports
from sentinel_wasm.grpc.answers import Answers, message_of
from sentinel_wasm.protocol import answers, metrics_report

from ..conftest import ROOT
from ..fuzz.protobuf import plainly
from .client import request_headers

pytestmark = pytest.mark.parallel

# Mostly what is plain, so that most events are for the compiled way.
TEXT = st.text(st.sampled_from('ab c:/"\\')) | st.text(max_size=4)
HEADERS = st.lists(st.builds(pb.Header, name=st.sampled_from(["a", "b", "c"]) | TEXT, value=TEXT), max_size=6)
METADATA = st.builds(
    pb.RequestMetadata,
    correlation_id=TEXT,
    request_id=TEXT,
    client_ip=TEXT,
    client_port=st.integers(0, 2**32 - 1),
    route_id=st.none() | TEXT,
    timestamp_ms=st.integers(0, 2**64 - 1),
    traceparent=st.none() | TEXT,
)
REQUESTS = st.builds(
    lambda event: pb.ProxyToAgent(request_headers=event),
    st.builds(
        pb.RequestHeadersEvent, metadata=METADATA, method=TEXT, uri=TEXT, http_version=TEXT, headers=HEADERS
    ),
)
RESPONSES = st.builds(
    lambda event: pb.ProxyToAgent(response_headers=event),
    st.builds(
        pb.ResponseHeadersEvent,
        correlation_id=TEXT,
        status_code=st.integers(0, 2**32 - 1),
        headers=HEADERS,
    ),
)


@given(REQUESTS | RESPONSES)
def test_both_ways_read_the_same(message: pb.ProxyToAgent) -> None:
    data = message.SerializeToString()
    found = header_event(data)
    assert found is None or found == plainly(data)


@given((REQUESTS | RESPONSES).map(pb.ProxyToAgent.SerializeToString), st.data())
def test_both_ways_read_broken_bytes_the_same(data: bytes, draw: st.DataObject) -> None:
    """What the compiled way takes, the library takes too."""
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        changed[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    changed = changed[: draw.draw(st.integers(0, len(data)))] if draw.draw(st.booleans()) else changed
    found = header_event(bytes(changed))
    assert found is None or found == plainly(bytes(changed))


def test_a_field_that_cannot_be_is_left_to_the_library() -> None:
    """Which refuses the whole message: there is no field 0."""
    metadata = pb.RequestMetadata(correlation_id="id").SerializeToString() + b"\x02\x01x"
    event = b"\x0a" + bytes([len(metadata)]) + metadata
    data = b"\x12" + bytes([len(event)]) + event
    assert header_event(data) is None
    assert plainly(data) is None


@pytest.mark.parametrize("count", [1, 20, 128])
def test_ordinary_events_are_for_the_compiled_way(count: int) -> None:
    headers = {f"x-{number}": ['a "b" \\', "c"][: number % 2 + 1] for number in range(count)}
    data = request_headers("id", "/a?b=\\", headers).SerializeToString()
    found = header_event(data)
    assert (found is None) is (count == 128)  # there are more values than that
    if found is not None:
        assert found == plainly(data)
        assert orjson.loads(found[2])["headers"] == headers


def test_names_that_come_again_later_are_left_to_the_library() -> None:
    headers = [pb.Header(name=name, value="") for name in ("a", "b", "a")]
    event = pb.ResponseHeadersEvent(correlation_id="id", headers=headers)
    data = pb.ProxyToAgent(response_headers=event).SerializeToString()
    assert header_event(data) is None
    assert orjson.loads(plainly(data)[2])["headers"] == {"a": ["", ""], "b": [""]}  # type: ignore[index]


@pytest.mark.parametrize("size", [1, 127, 128, 300, 70_000])
def test_an_answer_of_every_length(size: int) -> None:
    kept = Answers()
    for identity in ("i" * size, "é" * size):
        decision = Decision(Block(451, "b" * size))
        message = message_of(kept.encoded(answers.encode(decision, 2)), identity)
        response = pb.AgentToProxy.FromString(message).response
        assert response.correlation_id == identity
        assert response.block == pb.BlockDecision(status=451, body="b" * size)


def test_all_of_a_decision() -> None:
    decision = Decision(
        Challenge("captcha", {"a": "b"}),
        (HeaderOp("set", "A", "1"), HeaderOp("remove", "B")),
        (HeaderOp("add", "C", "é"),),
        Audit(("t",), ("r",), 0.5, ("c",)),
        {"pool": "x"},
        BodyMutation(b"x"),
        BodyMutation(b"y"),
        needs_more=True,
    )
    encoded = Answers().encoded(answers.encode(decision, 2))
    assert encoded.dropped == ("routing_metadata", "request_body_mutation", "response_body_mutation")
    response = pb.AgentToProxy.FromString(message_of(encoded, "id")).response
    assert response == pb.AgentResponse(
        correlation_id="id",
        challenge=pb.ChallengeDecision(challenge_type="captcha", params={"a": "b"}),
        request_headers=[pb.HeaderOp(set=pb.Header(name="A", value="1")), pb.HeaderOp(remove="B")],
        response_headers=[pb.HeaderOp(add=pb.Header(name="C", value="é"))],
        audit=pb.AuditMetadata(tags=["t"], rule_ids=["r"], confidence=0.5, reason_codes=["c"]),
        needs_more=True,
    )
    redirected = Answers().encoded(answers.encode(Decision(Redirect("/x", 307)), 2))
    response = pb.AgentToProxy.FromString(message_of(redirected, "id")).response
    assert response.redirect == pb.RedirectDecision(url="/x", status=307)


@pytest.mark.parametrize("verdict", [Drop(), Close(1008, "no")])
def test_a_frame_that_is_refused_is_not_let_through(verdict: Drop | Close) -> None:
    encoded = Answers().encoded(answers.encode(Decision(verdict), 2, is_frame=True))
    assert encoded.dropped == ("websocket_decision",)
    response = pb.AgentToProxy.FromString(message_of(encoded, "id")).response
    assert response.block == pb.BlockDecision(status=403)


def test_kept_answers_are_bounded() -> None:
    kept = Answers()
    for number in range(3000):
        kept.encoded(answers.encode(Decision(Block(403, str(number))), 2))
    assert len(kept._kept) <= 1024


def test_a_report_has_what_one_over_a_unix_socket_has() -> None:
    samples = {
        metrics.series("reports_sent_total"): 3,
        metrics.series("events_pending"): 1.5,
        **metrics.histogram("queue_wait_seconds", [1000, 2000], ([4, 5, 6], 7000)),
    }
    said = metrics_report.report(samples, 11, 12, {"worker": "1"})
    report = pb.AgentToProxy.FromString(reports.metrics(said)).metrics
    assert (report.timestamp_ms, report.interval_ms) == (11, 12)
    assert [(one.name, one.value, dict(one.labels)) for one in report.counters] == [
        ("sentinel_wasm_reports_sent_total", 3, {"worker": "1"})
    ]
    assert [(one.name, one.value) for one in report.gauges] == [("sentinel_wasm_events_pending", 1.5)]
    (histogram,) = report.histograms
    assert [(bucket.le, bucket.count) for bucket in histogram.buckets] == [
        (1e-6, 4),
        (2e-6, 9),
        (float("inf"), 15),
    ]
    assert (histogram.count, histogram.sum) == (15, 7e-6)


def test_health_in_numbers() -> None:
    states = ("healthy", "degraded", "draining", "unhealthy")
    said = [pb.AgentToProxy.FromString(reports.health(state)).health.state for state in states]
    assert said == [1, 2, 3, 4]


def test_what_is_generated_is_that_of_the_proto(tmp_path: Path) -> None:
    proto = "sentinel_wasm/grpc/agent.proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}"]
    subprocess.run([*command, f"--pyi_out={tmp_path}", proto], cwd=ROOT, check=True)
    for name in ("agent_pb2.py", "agent_pb2.pyi"):
        generated = (tmp_path / "sentinel_wasm" / "grpc" / name).read_text()
        assert generated == (ROOT / "sentinel_wasm" / "grpc" / name).read_text(), "make proto"
