"""What one process says of itself: its metrics, whether it serves, and what the page shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sentinel_wasm import __version__, logs, metrics
from sentinel_wasm._instances import ended_stores, live_stores, made_stores
from sentinel_wasm._metrics import BOUNDS_NS
from sentinel_wasm.decision import VERDICTS
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.limits import MIB
from sentinel_wasm.installed import wasmtime_version
from sentinel_wasm.metrics import Samples, histogram, series
from sentinel_wasm.server import events, usage
from sentinel_wasm.server.facts import facts
from sentinel_wasm.server.reload import Reloads
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.server.trial import Loaded

_PROTOCOLS = ("none", "v1", "v2")
_SHOWN = 500  # characters


class Status:
    """Of the process that serves so; `is_draining` is for who drains it."""

    def __init__(self, serving: Serving, reloads: Reloads | None = None) -> None:
        """`reloads`, where this process counts them."""
        self.is_draining = False
        self._serving = serving
        self._reloads = reloads
        self._build = series("build_info", version=__version__, wasmtime=wasmtime_version())

    async def metrics(self) -> bytes:
        return metrics.text(self._alone())

    def _alone(self) -> Samples:
        """Of an agent that is this process alone."""
        return {**self.samples(), **metrics.workers(1, alive=1), **usage.start()}

    def why_not_ready(self) -> str | None:
        return "the agent is stopping" if self.is_draining else self._serving.agent.trouble

    async def status(self) -> dict[str, Any]:
        about = self.about()
        return {
            **facts(),
            "modules": [about["module"]],
            "errors": about["errors"],
            "workers": [],
            "metrics": self._alone(),
        }

    async def events(self, since: int) -> bytes:
        return events.page(await events.read_all(self.entries(since)), since)

    async def loaded(self) -> Loaded:
        agent = self._serving.agent
        return Loaded(replace(agent.settings, module_config=agent.config), agent.module.sha256)

    def entries(self, since: int) -> bytes:
        """The last events as they are kept, those behind this number."""
        recent = self._serving.agent.counts.recent
        return b"" if recent is None else recent.since(since)

    def about(self) -> dict[str, Any]:
        """The module, and the last error of each kind."""
        agent = self._serving.agent
        return {
            "module": {
                "file": _text(Path(agent.module.name).name),
                "path": _text(agent.module.name),
                "sha256": agent.module.sha256,
                "from_cache": agent.module.from_cache,
                "hooks": agent.module.hook_names,
            },
            "errors": {
                kind: {"reason": _text(reason), "correlation_id": _text(correlation_id), "time": when}
                for kind, (reason, correlation_id, when) in agent.counts.last_errors.items()
            },
        }

    def samples(self) -> Samples:
        """What adds up over the processes of an agent."""
        reloads = self._reloads.samples() if self._reloads else {}
        return {**self._counted(), **reloads, **self._at_present(), **usage.samples()}

    def _counted(self) -> Samples:
        counts = self._serving.agent.counts
        samples: Samples = {}
        for hook, decisions in zip(abi.EVENT_HOOKS, counts.decisions_by_hook, strict=True):
            samples[series("events_total", hook=hook)] = sum(decisions)
            for verdict, count in zip(VERDICTS, decisions, strict=True):
                samples[series("decisions_total", hook=hook, decision=verdict)] = count
        for kind, count in counts.errors.items():
            samples[series("errors_total", kind=kind)] = count
        for name, times in (
            ("event_duration_seconds", counts.event_times),
            ("guest_call_duration_seconds", counts.call_times),
            ("queue_wait_seconds", counts.wait_times),
        ):
            samples |= histogram(name, BOUNDS_NS, *times)
        samples[series("instances_created_total")] = made_stores()
        samples[series("instances_discarded_total")] = ended_stores()
        samples[series("connections_accepted_total")] = counts.connections
        samples[series("reports_sent_total")] = self._serving.reports_sent
        samples[series("answer_cache_hits_total")] = counts.cache_hits
        samples[series("answer_cache_misses_total")] = counts.cache_misses
        for why, lines in logs.dropped_lines().items():
            samples[series("log_lines_dropped_total", why=why)] = lines
        return samples

    def _at_present(self) -> Samples:
        agent = self._serving.agent
        protocols = [connection.frames.protocol for connection in self._serving.connections]
        module_info = series(
            "module_info",
            file=Path(agent.module.name).name,
            sha256=agent.module.digest,
            from_cache="true" if agent.module.from_cache else "false",
        )
        return {
            series("events_pending"): agent.pending,
            series("events_pending_limit"): agent.settings.queue_limit,
            series("instances"): live_stores(),
            series("guest_memory_bytes"): agent.guest_memory_bytes,
            series("guest_memory_limit_bytes"): live_stores() * agent.settings.memory_limit * MIB,
            series("module_degraded"): int(agent.health != "healthy"),
            series("module_unhealthy"): int(agent.health == "unhealthy"),
            **{
                series("connections_open", protocol=name): protocols.count(number)
                for number, name in enumerate(_PROTOCOLS)
            },
            module_info: 1,
            self._build: 1,
        }


def _text(value: str) -> str:
    """What comes from a file's name, a module or a proxy need not be text."""
    return value.encode(errors="replace").decode()[:_SHOWN]
