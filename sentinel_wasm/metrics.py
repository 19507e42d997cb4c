"""What `/metrics` says: which metrics there are, and their text as Prometheus reads it (format 0.0.4)."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NS = 1_000_000_000
_SERIES_KEPT = 1024  # some 130 there are

Samples = dict[str, float]
"""The values of series: by a metric's name with its labels, as they stand in the text."""


class Family(NamedTuple):
    """A metric. `kind` is counter, gauge or histogram."""

    name: str
    kind: str
    help: str


def _full(name: str) -> str:
    """A metric's whole name. What every program has goes by the names that dashboards know."""
    return name if name.startswith("process_") else f"sentinel_wasm_{name}"


FAMILIES = tuple(
    Family(_full(name), kind, text)
    for name, kind, text in (
        ("events_total", "counter", "Events that were answered, by the hook that they are for."),
        ("decisions_total", "counter", "Answers, by hook and by what they say."),
        ("errors_total", "counter", "Events answered by the fail-open rule, by what went wrong."),
        ("event_duration_seconds", "histogram", "From an event's arrival to the writing of its answer."),
        ("guest_call_duration_seconds", "histogram", "Calls of the module's hooks."),
        ("queue_wait_seconds", "histogram", "How long calls waited in a worker thread's queue."),
        ("events_pending", "gauge", "Events that worker threads have."),
        ("events_pending_limit", "gauge", "Events that they may have (--queue-limit)."),
        ("instances", "gauge", "Instances of the module."),
        ("instances_created_total", "counter", "Instances that were started, or failed to start."),
        ("instances_discarded_total", "counter", "Instances that were freed."),
        ("guest_memory_bytes", "gauge", "Linear memory of all instances."),
        ("guest_memory_limit_bytes", "gauge", "What they may have: --memory-limit for each instance."),
        ("module_degraded", "gauge", "1 while the module keeps failing."),
        ("module_unhealthy", "gauge", "1 while it keeps failing and events are answered without asking it."),
        (
            "connections_open",
            "gauge",
            "Connections of proxies, by protocol; none: nothing has come yet. With --grpc, its streams.",
        ),
        ("connections_accepted_total", "counter", "Connections of proxies so far."),
        ("answer_cache_hits_total", "counter", "Results whose answer was made in Python before."),
        ("answer_cache_misses_total", "counter", "Results whose answer had to be made in Python."),
        ("reports_sent_total", "counter", "MetricsReport frames to v2 proxies."),
        ("grpc_dropped_total", "counter", "With --grpc: parts of answers that it cannot carry."),
        ("log_lines_dropped_total", "counter", "Lines that the log does not have, by the reason."),
        ("reloads_total", "counter", "Reloads, by result."),
        ("reload_success_timestamp_seconds", "gauge", "When a reload last succeeded; 0: none yet."),
        ("module_info", "gauge", "The module; from_cache: an earlier start had compiled it."),
        ("build_info", "gauge", "The agent's version, and wasmtime's."),
        ("workers_configured", "gauge", "Processes that should answer events (--workers)."),
        ("workers_alive", "gauge", "Processes that answer events."),
        ("workers_died_total", "counter", "Worker processes that died and were replaced."),
        ("process_cpu_seconds_total", "counter", "Processor time, of all processes of the agent."),
        ("process_resident_memory_bytes", "gauge", "Resident memory; what processes share counts for each."),
        ("process_open_fds", "gauge", "Open file descriptors."),
        ("process_max_fds", "gauge", "File descriptors that may be open."),
        ("process_start_time_seconds", "gauge", "When the agent began, in seconds since 1970."),
    )
)
_FAMILIES = {family.name: family for family in FAMILIES}
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


@functools.lru_cache(maxsize=_SERIES_KEPT)
def series(name: str, **labels: str) -> str:
    """A series' name as it stands in the text; `name` is a metric's without its prefix."""
    pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels.items())
    return f"{_full(name)}{{{pairs}}}" if pairs else _full(name)


@functools.lru_cache(maxsize=_SERIES_KEPT)
def parsed(series: str) -> tuple[str, dict[str, str]]:
    """The name and the labels that a series' text has; not to be changed."""
    name, _, pairs = series.partition("{")
    labels = {
        label: _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], value)
        for label, value in _LABEL.findall(pairs)
    }
    return name, labels


def histogram(name: str, bounds_ns: Sequence[int], counts: Sequence[int], sum_ns: int) -> Samples:
    """The series of a histogram in seconds; `counts` has what is above all bounds last."""
    samples: Samples = {}
    below = 0
    for bound_ns, count in zip(bounds_ns, counts, strict=False):
        below += count
        samples[series(f"{name}_bucket", le=f"{bound_ns / _NS:.12g}")] = below
    samples[series(f"{name}_bucket", le="+Inf")] = samples[series(f"{name}_count")] = below + counts[-1]
    samples[series(f"{name}_sum")] = sum_ns / _NS
    return samples


def workers(configured: int, *, alive: int, died: int = 0) -> Samples:
    """Of the processes that answer events."""
    return {
        series("workers_configured"): configured,
        series("workers_alive"): alive,
        series("workers_died_total"): died,
    }


def total(parts: Iterable[Samples]) -> Samples:
    """What several processes have counted together."""
    sums: Samples = {}
    for part in parts:
        for name, value in part.items():
            sums[name] = sums.get(name, 0) + value
    return sums


def lasting(samples: Samples) -> Samples:
    """What stays of a process that has ended: all but its gauges."""
    return {name: value for name, value in samples.items() if family(name).kind != "gauge"}


def text(samples: Samples) -> bytes:
    """The whole page."""
    lines: dict[str, list[str]] = {family.name: [] for family in FAMILIES}
    for name, value in samples.items():
        lines[family(name).name].append(f"{name} {value!r}\n")
    return "".join(
        f"# HELP {of.name} {of.help}\n# TYPE {of.name} {of.kind}\n" + "".join(lines[of.name])
        for of in FAMILIES
    ).encode()


def family(series: str) -> Family:
    """The metric that a series belongs to."""
    name = series.partition("{")[0]
    return _FAMILIES.get(name) or _FAMILIES[name.rpartition("_")[0]]


def _escaped(value: str) -> str:
    # A file's name need not be text.
    value = value.encode("utf-8", "replace").decode()
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
