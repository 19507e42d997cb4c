"""The admin endpoint of a running agent, asked as Prometheus and a container's probe ask it."""

from __future__ import annotations

import http.client

import orjson
from prometheus_client.parser import text_string_to_metric_families

from .conftest import RunningAgent

LOCAL = ("--admin", "127.0.0.1:0")


def address(agent: RunningAgent) -> str:
    """Where it listens."""
    return str(orjson.loads(agent.wait_for_log("admin endpoint"))["address"])


def get(agent: RunningAgent, path: str) -> tuple[int, str]:
    """Status and body."""
    connection = http.client.HTTPConnection(address(agent), timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Scraped:
    """One page of metrics, parsed by Prometheus' own client."""

    def __init__(self, agent: RunningAgent) -> None:
        status, self.text = get(agent, "/metrics")
        assert status == 200
        self.families = {family.name: family for family in text_string_to_metric_families(self.text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Of a series, named without the prefix."""
        return float(self._samples[f"sentinel_wasm_{name}", frozenset(labels.items())])

    def of_process(self, name: str) -> float:
        """Of a `process_…` metric."""
        return float(self._samples[f"process_{name}", frozenset()])

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """The values that are not 0, by one of their labels, where the others are these."""
        found: dict[str, float] = {}
        for (series, own), value in self._samples.items():
            rest = dict(own)
            if series == f"sentinel_wasm_{name}" and value:
                key = rest.pop(label)
                if labels.items() <= rest.items():
                    found[key] = found.get(key, 0) + value
        return found

    @property
    def counters(self) -> dict[object, float]:
        """What must never go down."""
        kinds = ("counter", "histogram")
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            if family.type in kinds
            for sample in family.samples
        }
