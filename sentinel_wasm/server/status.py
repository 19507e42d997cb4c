"""What one process says of itself: its metrics, whether it serves, and what the page shows."""

from __future__ import annotations

from typing import Any

from sentinel_wasm import __version__, logs, metrics
from sentinel_wasm._instances import ended_stores, live_stores, made_stores
from sentinel_wasm._metrics import BOUNDS_NS, Counts
from sentinel_wasm.decision import VERDICTS
from sentinel_wasm.guest import abi
from sentinel_wasm.installed import wasmtime_version
from sentinel_wasm.metrics import Samples, histogram, series
from sentinel_wasm.server import events, modules, usage
from sentinel_wasm.server.facts import facts
from sentinel_wasm.server.reload import Reloads
from sentinel_wasm.server.reverse import Reverse
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.server.trial import Loaded, loaded

_PROTOCOLS = ("none", "v1", "v2")


class Status:
    """Of the process that serves so; `is_draining` is for who drains it."""

    def __init__(
        self, serving: Serving, reloads: Reloads | None = None, reverse: Reverse | None = None
    ) -> None:
        """`reloads`, where this process counts them; `reverse`, where it opens connections."""
        self.is_draining = False
        self._serving = serving
        self._reloads = reloads
        self._reverse = reverse
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
            "modules": about["modules"],
            "errors": about["errors"],
            "workers": [],
            "metrics": self._alone(),
        }

    async def events(self, since: int) -> bytes:
        return events.page(await events.read_all(self.entries(since)), since)

    async def loaded(self) -> Loaded:
        return loaded(self._serving.agent.settings, self.about()["modules"], self.configs())

    def configs(self) -> dict[str, str | None]:
        """What instances are configured with, as JSON, by the names of the modules."""
        return {link.name: link.pool.config for link in self._serving.agent.links}

    def entries(self, since: int) -> bytes:
        """The last events as they are kept, those behind this number."""
        recent = self._serving.agent.counts.recent
        return b"" if recent is None else recent.since(since)

    def about(self) -> dict[str, Any]:
        """The modules, and the last error of each kind."""
        agent = self._serving.agent
        errors = [
            (when, kind, f"{name}: {reason}" if name else reason, correlation_id)
            for name, counts in self._counts()
            for kind, (reason, correlation_id, when) in counts.last_errors.items()
        ]
        return {
            "modules": [modules.about(link) for link in agent.links],
            "errors": {
                kind: {
                    "reason": modules.text(reason),
                    "correlation_id": modules.text(correlation_id),
                    "time": when,
                }
                for when, kind, reason, correlation_id in sorted(errors)
            },
        }

    def _counts(self) -> list[tuple[str, Counts]]:
        """Of the agent, and of each module of a chain by its name."""
        agent = self._serving.agent
        return [("", agent.counts), *((link.name, link.counts) for link in agent.links if link.name)]

    def samples(self) -> Samples:
        """What adds up over the processes of an agent."""
        reloads = self._reloads.samples() if self._reloads else {}
        reverse = self._reverse.samples() if self._reverse else {}
        present = {**self._at_present(), **self._over_grpc()}
        return {**self._counted(), **reloads, **reverse, **present, **usage.samples()}

    def _counted(self) -> Samples:
        agent = self._serving.agent
        counts = agent.counts
        samples: Samples = {}
        for hook, decisions in zip(abi.EVENT_HOOKS, counts.decisions_by_hook, strict=True):
            samples[series("events_total", hook=hook)] = sum(decisions)
            for verdict, count in zip(VERDICTS, decisions, strict=True):
                samples[series("decisions_total", hook=hook, decision=verdict)] = count
        samples |= histogram("event_duration_seconds", BOUNDS_NS, counts.event_times)
        for name, own in self._counts():
            for kind, count in own.errors.items():
                samples[series("errors_total", kind=kind, **modules.label(name))] = count
        for link in agent.links:
            samples |= modules.counted(link)
        for shadow in agent.shadows:
            for result, count in shadow.results.items():
                samples[series("shadow_events_total", result=result, **modules.label(shadow.link.name))] = (
                    count
                )
        samples[series("instances_created_total")] = made_stores()
        samples[series("instances_discarded_total")] = ended_stores()
        samples[series("connections_accepted_total")] = counts.connections
        samples[series("reports_sent_total")] = self._serving.reports_sent
        samples[series("answer_cache_hits_total")] = counts.cache_hits
        samples[series("answer_cache_misses_total")] = counts.cache_misses
        for why, lines in logs.dropped_lines().items():
            samples[series("log_lines_dropped_total", why=why)] = lines
        return samples

    def _over_grpc(self) -> Samples:
        if self._serving.grpc is None:
            return {}
        dropped = self._serving.grpc.dropped.items()
        return {
            series("connections_open", protocol="grpc"): self._serving.grpc.streams,
            **{series("grpc_dropped_total", part=part): count for part, count in dropped},
        }

    def _at_present(self) -> Samples:
        agent = self._serving.agent
        protocols = [connection.frames.protocol for connection in self._serving.connections]
        return {
            series("instances"): live_stores(),
            **{
                series("connections_open", protocol=name): protocols.count(number)
                for number, name in enumerate(_PROTOCOLS)
            },
            **{name: value for link in agent.links for name, value in modules.at_present(link).items()},
            self._build: 1,
        }
