"""MetricsReport: the numbers of /metrics, for v2 proxies (agent-protocol.md, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentinel_wasm import metrics
from sentinel_wasm.metrics import Samples
from sentinel_wasm.protocol.handshake import AGENT_ID

_NO_LABELS: dict[str, str] = {}


def report(
    samples: Samples, timestamp_ms: int, interval_ms: int, labels: Mapping[str, str] = _NO_LABELS
) -> dict[str, Any]:
    """A report of all but `process_…`, which the proxy has of its own; each series gets `labels` too."""
    counters: list[dict[str, Any]] = []
    gauges: list[dict[str, Any]] = []
    histograms: dict[object, dict[str, Any]] = {}
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
            of = {label: text for label, text in own.items() if label != "le"}
            histogram = histograms.setdefault(
                (family.name, *of.values()), {"name": family.name, "labels": {**of, **labels}, "buckets": []}
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
