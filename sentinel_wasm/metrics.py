"""What `/metrics` says: which metrics there are, and their text as Prometheus reads it (format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NS = 1_000_000_000

Samples = dict[str, float]
"""The values of series: by a metric's name with its labels, as they stand in the text."""


class Family(NamedTuple):
    """A metric. `kind` is counter, gauge or histogram."""

    name: str
    kind: str
    help: str


FAMILIES = tuple(
    Family(f"sentinel_wasm_{name}", kind, text)
    for name, kind, text in (
        ("events_total", "counter", "Events that were answered, by the hook that they are for."),
        ("decisions_total", "counter", "Answers, by hook and by what they say."),
        ("errors_total", "counter", "Events answered by the fail-open rule, by what went wrong."),
        ("event_duration_seconds", "histogram", "From an event's arrival to the writing of its answer."),
        ("guest_call_duration_seconds", "histogram", "Calls of the module's hooks."),
        ("queue_wait_seconds", "histogram", "How long calls waited in a worker thread's queue."),
        ("events_pending", "gauge", "Events that worker threads have."),
        ("instances", "gauge", "Instances of the module."),
        ("instances_created_total", "counter", "Instances that were started, or failed to start."),
        ("instances_discarded_total", "counter", "Instances that were freed."),
        ("guest_memory_bytes", "gauge", "Linear memory of all instances."),
        ("module_degraded", "gauge", "1 while the module keeps failing."),
        ("connections_open", "gauge", "Connections of proxies, by protocol; none: nothing has come yet."),
        ("connections_accepted_total", "counter", "Connections of proxies so far."),
        ("answer_cache_hits_total", "counter", "Results whose answer was made in Python before."),
        ("answer_cache_misses_total", "counter", "Results whose answer had to be made in Python."),
        ("log_lines_dropped_total", "counter", "Lines that the log does not have, by the reason."),
        ("module_info", "gauge", "The module; from_cache: an earlier start had compiled it."),
        ("build_info", "gauge", "The agent's version, and wasmtime's."),
    )
)
_KINDS = {family.name: family.kind for family in FAMILIES}


def series(name: str, **labels: str) -> str:
    """A series' name as it stands in the text; `name` is a metric's without its prefix."""
    pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels.items())
    return f"sentinel_wasm_{name}{{{pairs}}}" if pairs else f"sentinel_wasm_{name}"


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


def total(parts: Iterable[Samples]) -> Samples:
    """What several processes have counted together."""
    sums: Samples = {}
    for part in parts:
        for name, value in part.items():
            sums[name] = sums.get(name, 0) + value
    return sums


def lasting(samples: Samples) -> Samples:
    """What stays of a process that has ended: all but its gauges."""
    return {name: value for name, value in samples.items() if _KINDS[_family(name)] != "gauge"}


def text(samples: Samples) -> bytes:
    """The whole page."""
    lines: dict[str, list[str]] = {family.name: [] for family in FAMILIES}
    for name, value in samples.items():
        lines[_family(name)].append(f"{name} {value!r}\n")
    return "".join(
        f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
        + "".join(lines[family.name])
        for family in FAMILIES
    ).encode()


def _family(name: str) -> str:
    """The metric that a series belongs to."""
    base = name.partition("{")[0]
    return base if base in _KINDS else base.rpartition("_")[0]


def _escaped(value: str) -> str:
    # A file's name need not be text.
    value = value.encode("utf-8", "replace").decode()
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
