"""MetricsReport: the numbers of /metrics, for v2 proxies (agent-protocol.md, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from sentinel_wasm import metrics
from sentinel_wasm.metrics import Samples
from sentinel_wasm.protocol.frames import FrameType, encode_v2
from sentinel_wasm.protocol.handshake import AGENT_ID

_NO_LABELS: dict[str, str] = {}


def frame(report: dict[str, Any]) -> bytes:
    """Of a report, for a Unix socket."""
    return encode_v2(FrameType.METRICS_REPORT, orjson.dumps(report))


def report(
    samples: Samples, timestamp_ms: int, interval_ms: int, labels: Mapping[str, str] = _NO_LABELS
) -> dict[str, Any]:
    """A report of all but `process_…`, which the proxy has of its own; each series gets `labels` too."""
    counters: list[dict[str, Any]] = []
    gauges: list[dict[str, Any]] = []
    histograms: dict[str, dict[str, Any]] = {}
    for series, value in samples.items():
        name, own = metrics.parsed(series)
        family = metrics.family(name)
        if family.name.startswith("process_"):
            continue
        if family.kind == "counter":
            counters.append({"name": name, "labels": {**own, **labels}, "value": int(value)})
        elif family.kind == "gauge":
            gauges.append({"name": name, "labels": {**own, **labels}, "value": value})
        else:
            histogram = histograms.setdefault(
                family.name, {"name": family.name, "labels": labels, "buckets": []}
            )
            if "le" in own:
                le = own["le"] if own["le"] == "+Inf" else float(own["le"])
                histogram["buckets"].append({"le": le, "count": int(value)})
            elif name.endswith("_count"):
                histogram["count"] = int(value)
            else:
                histogram["sum"] = value
    return {
        "agent_id": AGENT_ID,
        "timestamp_ms": timestamp_ms,
        "interval_ms": interval_ms,
        "counters": counters,
        "gauges": gauges,
        "histograms": list(histograms.values()),
    }
