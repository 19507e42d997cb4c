"""What one module of an agent says of itself: its part of the metrics and of what the page shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentinel_wasm._metrics import BOUNDS_NS
from sentinel_wasm.decision import VERDICTS
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.limits import MIB
from sentinel_wasm.link import Link
from sentinel_wasm.metrics import Samples, histogram, series

_SHOWN = 500  # characters


def about(link: Link) -> dict[str, Any]:
    """For the page. `name` is empty where it is the only one."""
    module = link.module
    return {
        "name": link.name,
        "file": text(Path(module.name).name),
        "path": text(module.name),
        "sha256": module.sha256,
        "from_cache": module.from_cache,
        "hooks": module.hook_names,
        "health": link.pool.failures.health,
        "is_shadow": link.is_shadow,
    }


def label(name: str) -> dict[str, str]:
    """Of a module's series, where there are several."""
    return {"module": name} if name else {}


def counted(link: Link) -> Samples:
    """What it has done. What it decides is what the agent answers, where it is the only one."""
    counts, own = link.counts, label(link.name)
    samples = {
        **histogram("guest_call_duration_seconds", BOUNDS_NS, counts.call_times, **own),
        **histogram("queue_wait_seconds", BOUNDS_NS, counts.wait_times, **own),
    }
    if link.name and not link.is_shadow:
        for hook, there, decisions in zip(
            abi.HOOKS, link.module.hooks, counts.decisions_by_hook, strict=False
        ):
            for verdict, count in zip(VERDICTS, decisions, strict=True):
                if there:
                    samples[series("module_decisions_total", hook=hook, decision=verdict, **own)] = count
    return samples


def at_present(link: Link) -> Samples:
    """A shadow's health is nobody's concern but its own."""
    pool, module, own = link.pool, link.module, label(link.name)
    samples: Samples = {
        series("events_pending", **own): pool.pending,
        series("events_pending_limit", **own): link.settings.queue_limit,
        series("guest_memory_bytes", **own): pool.memory_bytes,
        series("guest_memory_limit_bytes", **own): len(pool.instances) * link.settings.memory_limit * MIB,
        series(
            "module_info",
            file=Path(module.name).name,
            sha256=module.digest,
            from_cache="true" if module.from_cache else "false",
            **own,
        ): 1,
    }
    if not link.is_shadow:
        health = pool.failures.health
        samples[series("module_degraded", **own)] = int(health != "healthy")
        samples[series("module_unhealthy", **own)] = int(health == "unhealthy")
    return samples


def text(value: str) -> str:
    """What comes from a file's name, a module or a proxy need not be text."""
    return value.encode(errors="replace").decode()[:_SHOWN]
