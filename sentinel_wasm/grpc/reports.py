"""What the agent says of itself to proxies: the handshake's answer, its health, its metrics."""

from __future__ import annotations

import time
from typing import Any

from sentinel_wasm.grpc import agent_pb2 as pb
from sentinel_wasm.protocol import handshake
from sentinel_wasm.protocol.handshake import AGENT_ID, CAPABILITIES, HEALTH_STATES, PROTOCOL_VERSION

_CONFIGURE = 8  # of EventType, where a Unix socket has 0; the others' numbers are the same


def handshake_answer(request: pb.HandshakeRequest) -> bytes:
    """The AgentToProxy; its `config_json` is not looked at, as the `config` of one over a Unix socket."""
    refused = handshake.refusal(list(request.supported_versions))
    response = pb.HandshakeResponse(
        protocol_version=PROTOCOL_VERSION,
        capabilities=pb.AgentCapabilities(
            protocol_version=PROTOCOL_VERSION,
            agent_id=AGENT_ID,
            name=CAPABILITIES["name"],
            version=CAPABILITIES["version"],
            supported_events=[kind or _CONFIGURE for kind in CAPABILITIES["supported_events"]],
            features=pb.AgentFeatures(**CAPABILITIES["features"]),
            limits=pb.AgentLimits(**CAPABILITIES["limits"]),
        ),
        success=refused is None,
        error=refused,
    )
    return pb.AgentToProxy(handshake=response).SerializeToString()


def pong(ping: pb.Ping) -> bytes:
    """The AgentToProxy."""
    answer = pb.Pong(sequence=ping.sequence, ping_timestamp_ms=ping.timestamp_ms, timestamp_ms=now_ms())
    return pb.AgentToProxy(pong=answer).SerializeToString()


def health(state: str) -> bytes:
    """The AgentToProxy; `state` is the agent's health, or draining."""
    status = pb.HealthStatus(
        agent_id=AGENT_ID,
        state=HEALTH_STATES[state],
        timestamp_ms=now_ms(),
        timeout_multiplier=1.0,
        recoverable=True,
    )
    return pb.AgentToProxy(health=status).SerializeToString()


def metrics(report: dict[str, Any]) -> bytes:
    """The AgentToProxy of a MetricsReport (protocol.metrics_report)."""
    said = pb.MetricsReport(
        agent_id=report["agent_id"],
        timestamp_ms=report["timestamp_ms"],
        interval_ms=report["interval_ms"],
        counters=[pb.CounterMetric(**counter) for counter in report["counters"]],
        gauges=[pb.GaugeMetric(**gauge) for gauge in report["gauges"]],
        histograms=[_histogram(**histogram) for histogram in report["histograms"]],
    )
    return pb.AgentToProxy(metrics=said).SerializeToString()


def _histogram(*, buckets: list[dict[str, Any]], **rest: Any) -> pb.HistogramMetric:
    return pb.HistogramMetric(
        buckets=[pb.HistogramBucket(le=float(bucket["le"]), count=bucket["count"]) for bucket in buckets],
        **rest,
    )


def now_ms() -> int:
    return time.time_ns() // 1_000_000
