"""The alerts and the dashboard of deploy/, in a real Prometheus that scrapes a real agent."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from sentinel_wasm.client import request_headers
from sentinel_wasm.metrics import FAMILIES, family
from sentinel_wasm.protocol.events import EventKind

from . import conftest
from .conftest import ROOT, BuildWat, StartAgent
from .e2e.proxy import free_port
from .guest import wat
from .scraping import LOCAL, Scraped, address
from .test_metrics import obedient

pytestmark = pytest.mark.parallel

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus-rules.yml"
RULE_TESTS = DEPLOY / "prometheus-rules.test.yml"
DASHBOARD: dict[str, Any] = orjson.loads((DEPLOY / "grafana-dashboard.json").read_bytes())
DOCUMENTATION = (ROOT / "docs" / "metrics.md").read_text()

ALERTS = re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.MULTILINE)

# Nothing has happened that these queries would show.
EMPTY_WHEN_WELL = (
    "sentinel_wasm_errors_total",
    # Of several modules, and of gRPC.
    "sentinel_wasm_module_decisions_total",
    "sentinel_wasm_shadow_events_total",
    "sentinel_wasm_grpc_dropped_total",
)


def tool(name: str) -> str:
    """Its path; skips the test where Prometheus is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name}: apt-get install prometheus")
    return path


def promtool(*arguments: str | Path, text: str | None = None) -> None:
    done = subprocess.run(
        [tool("promtool"), *arguments], input=text, capture_output=True, text=True, timeout=60, cwd=DEPLOY
    )
    assert done.returncode == 0, done.stdout + done.stderr


def dashboard_queries() -> list[str]:
    """As Grafana sends them: with its variables filled in."""
    return [
        target["expr"]
        .replace("$__rate_interval", "1m")
        .replace("$job", "sentinel-wasm")
        .replace("$instance", ".*")
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", [])
    ]


# --- what stands in the files


def test_prometheus_takes_the_alerts_and_they_fire_when_they_should() -> None:
    promtool("check", "rules", RULES)
    promtool("test", "rules", RULE_TESTS)


def test_every_alert_is_tested_and_described() -> None:
    assert len(set(ALERTS)) == len(ALERTS) > 10
    text = RULES.read_text()
    for field in ("for", "severity", "summary", "description"):
        assert len(re.findall(rf"^ +{field}: \S", text, re.MULTILINE)) == len(ALERTS), field
    tested = re.findall(r'alertname="(\w+)"', RULE_TESTS.read_text())
    assert set(tested) == set(ALERTS)
    described = re.findall(r"^### (SentinelWasm\w+)$", DOCUMENTATION, re.MULTILINE)
    assert described == ALERTS
    links = re.findall(r"^ +runbook_url: docs/metrics\.md#(\w+)$", text, re.MULTILINE)
    assert links == [alert.lower() for alert in ALERTS]


def test_alerts_and_dashboard_name_metrics_that_there_are() -> None:
    expressions = [*dashboard_queries(), *_expressions_of_rules()]
    names = set(re.findall(r"\b(?:sentinel_wasm|process)_\w+", " ".join(expressions)))
    assert len(names) >= 30
    for name in names:
        family(name)
    used = {family(name) for name in names}
    # What only explains another.
    assert {of.name for of in FAMILIES if of not in used} <= {
        "sentinel_wasm_decisions_total",
        "sentinel_wasm_reverse_connections_lost_total",
        "sentinel_wasm_reverse_registrations_total",
        "sentinel_wasm_reports_sent_total",
        "sentinel_wasm_log_lines_dropped_total",
        "sentinel_wasm_reload_success_timestamp_seconds",
    }


def _expressions_of_rules() -> list[str]:
    return re.findall(r"^ +expr: (?:\|\n)?((?:.|\n)*?)^ +for:", RULES.read_text(), re.MULTILINE)


def test_prometheus_can_parse_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(dashboard_queries())]
    path = tmp_path / "queries.yml"
    path.write_bytes(orjson.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", path)


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    """As far as can be told without Grafana: docs/metrics.md says what it was checked with."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not taken & cells, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["title"]
        assert panel["description"]
        for target in panel["targets"]:
            assert 'job="$job", instance=~"$instance"' in target["expr"]
            assert target["datasource"]["uid"] == "${datasource}" == panel["datasource"]["uid"]
    variables = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "job": "query", "instance": "query"}
    assert {"uid", "title", "schemaVersion"} <= DASHBOARD.keys()


# --- in a real Prometheus


class Prometheus:
    """Asked over its HTTP API."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"{self._base}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = orjson.loads(answer.read())
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> list[Any]:
        found: list[Any] = self.ask("/api/v1/query", query=expression)["result"]
        return found

    def firing(self) -> set[str]:
        alerts = self.ask("/api/v1/alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def rules(self) -> list[dict[str, Any]]:
        groups = self.ask("/api/v1/rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]


until = partial(conftest.until, every_s=0.05)  # who is asked has work to do for an answer


@contextmanager
def prometheus(directory: Path, scraped: str) -> Iterator[Prometheus]:
    """One that has the alerts, but for how long they wait, and looks twice a second."""
    (directory / "rules.yml").write_text(re.sub(r"for: \d+m", "for: 0s", RULES.read_text()))
    (directory / "prometheus.yml").write_text(
        f"""
global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}
rule_files: [rules.yml]
scrape_configs: [{{job_name: sentinel-wasm, static_configs: [{{targets: ["{scraped}"]}}]}}]
"""
    )
    port = free_port()
    command = [
        tool("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        server = Prometheus(port)

        def scrapes() -> bool:
            assert process.poll() is None, (directory / "prometheus.log").read_text()
            try:
                return bool(server.query("sentinel_wasm_build_info"))
            except OSError:
                return False

        until(scrapes)
        yield server
    finally:
        process.kill()
        process.wait()


def test_alerts_fire_when_the_module_fails_and_are_silent_when_it_is_well(
    start_agent: StartAgent, build_wat: BuildWat, tmp_path: Path
) -> None:
    tool("prometheus")
    agent = start_agent(build_wat(obedient()), *LOCAL, "--pool-size", "1")
    with prometheus(tmp_path, address(agent)) as server, agent.v2() as client:

        def ask(method: str) -> Any:
            return client.ask(EventKind.REQUEST_HEADERS, request_headers("a", method))["decision"]

        for _ in range(20):
            assert ask("ALLOW") == "allow"
        until(lambda: {rule["health"] for rule in server.rules()} == {"ok"})
        assert {rule["name"] for rule in server.rules()} == set(ALERTS)
        for query in dashboard_queries():
            if not any(name in query for name in EMPTY_WHEN_WELL):
                until(partial(server.query, query))
        until(lambda: not any(server.query(rule["query"]) for rule in server.rules()))
        until(lambda: server.firing() == set())
        until(lambda: ask("TRAP") != "allow" and Scraped(agent).value("module_unhealthy"))
        failing = {"SentinelWasmModuleDegraded", "SentinelWasmModuleUnhealthy", "SentinelWasmErrors"}
        until(lambda: failing <= server.firing())
        until(lambda: ask("ALLOW") == "allow")
        until(lambda: not server.firing() & {"SentinelWasmModuleDegraded", "SentinelWasmModuleUnhealthy"})
        agent.stop()
        until(lambda: "SentinelWasmDown" in server.firing())


def test_promtool_has_nothing_to_say_about_the_page(start_agent: StartAgent, build_wat: BuildWat) -> None:
    tool("promtool")
    for options in ((), ("--workers", "2")):
        agent = start_agent(build_wat(wat.module(wat.says('{"decision":"allow"}'))), *LOCAL, *options)
        promtool("check", "metrics", text=Scraped(agent).text)
