"""deploy/kubernetes: what Kubernetes' own schemas say of it, and that it names only what the agent has."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import orjson
import pytest
import yaml

from sentinel_wasm.configuration import Configuration
from sentinel_wasm.metrics import family
from sentinel_wasm.settings import Address, options, parse_address

from .conftest import EXAMPLES, ROOT, StartAgent
from .scraping import get
from .test_prometheus import promtool

pytestmark = pytest.mark.parallel

FOLDER = ROOT / "deploy" / "kubernetes"
VARIANTS = ("base", "tls")
VERSIONS = (
    "1.30",
    "1.37",
)  # of Kubernetes: the oldest that has all that is used, and the newest when this was written
ADAPTER = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())
SCRAPING = (FOLDER / "prometheus.yaml").read_text()
DRAIN_S = 10


@cache
def rendered(variant: str) -> dict[str, dict[str, Any]]:
    """The objects, by kind and name; skips the test where there is no kubectl."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl: https://kubernetes.io/docs/tasks/tools")
    command = ["kubectl", "kustomize", str(FOLDER / variant)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    objects = yaml.safe_load_all(done.stdout)
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in objects}


def pod(variant: str = "base") -> dict[str, Any]:
    template: dict[str, Any] = rendered(variant)["Deployment/sentinel-wasm-agent"]["spec"]["template"]
    return template


def container(variant: str = "base") -> dict[str, Any]:
    [found] = pod(variant)["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def values(tree: Any, key: str) -> Iterator[Any]:
    """Of every member with this name, however deep."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from values(value, key)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_kubernetes_takes_every_object(variant: str, version: str) -> None:
    assert len(rendered(variant)) == 7
    for described in rendered(variant).values():
        kubernetes_validate.validate(described, version, strict=True)


def test_the_schemas_know_a_mistake() -> None:
    mistaken = {**rendered("base")["Service/sentinel-wasm-agent"], "spec": {"clusterIp": "None"}}
    with pytest.raises(kubernetes_validate.ValidationError, match="clusterIp"):
        kubernetes_validate.validate(mistaken, VERSIONS[0], strict=True)


def test_everything_selects_these_pods() -> None:
    labels = pod()["metadata"]["labels"]
    for key in ("Deployment", "PodDisruptionBudget"):
        assert rendered("base")[f"{key}/sentinel-wasm-agent"]["spec"]["selector"]["matchLabels"] == labels
    for name in ("sentinel-wasm-agent", "sentinel-wasm-agents"):
        assert rendered("base")[f"Service/{name}"]["spec"]["selector"] == labels
    policy = rendered("base")["NetworkPolicy/sentinel-wasm-agent"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    for spread in pod()["spec"]["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"] == labels
    target = rendered("base")["HorizontalPodAutoscaler/sentinel-wasm-agent"]["spec"]["scaleTargetRef"]
    assert f"{target['kind']}/{target['name']}" in rendered("base")


def test_ports_are_those_that_the_agent_listens_on(configuration: dict[str, Any]) -> None:
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert configuration["grpc"] == Address("0.0.0.0", ports["grpc"])
    assert configuration["admin"] == Address("0.0.0.0", ports["metrics"])
    names = {*values(rendered("base"), "targetPort"), *(probe["port"] for probe in probes())}
    policy = rendered("base")["NetworkPolicy/sentinel-wasm-agent"]["spec"]
    names |= {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
    assert names == set(ports)


@pytest.fixture
def configuration() -> dict[str, Any]:
    """What agent.toml and the environment say, by field; what the agent does not have is refused."""
    values = Configuration(FOLDER / "base" / "agent.toml").values
    by_variable = {option.variable: option for option in options()}
    for each in container()["env"]:
        option = by_variable[each["name"]]
        values[option.field] = (parse_address if option.kind is Address else Path)(each["value"])
    return values


def probes() -> list[dict[str, Any]]:
    return list(values(container(), "httpGet"))


def test_the_agent_starts_with_the_configuration_and_answers_the_probes(
    start_agent: StartAgent, tmp_path: Path
) -> None:
    config_map = rendered("base")["ConfigMap/sentinel-wasm-config"]["data"]
    [(name, text)] = config_map.items()
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container()["volumeMounts"]}
    assert container()["args"] == ["--config", str(mounts["configuration"] / name)]
    (tmp_path / name).write_text(text)
    here = ("--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--cache-dir", str(tmp_path / "cache"))
    agent = start_agent(EXAMPLES / "c" / "security.wasm", "--config", str(tmp_path / name), *here)
    assert len(probes()) == 3
    for probe in probes():
        assert get(agent, probe["path"])[0] == 200


def test_what_is_written_is_written_where_it_may_be(configuration: dict[str, Any]) -> None:
    assert container()["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container()["volumeMounts"]}
    [scratch] = [volume for volume in pod()["spec"]["volumes"] if "emptyDir" in volume]
    for path in (configuration["socket"], configuration["cache_dir"]):
        assert mounts[scratch["name"]] in path.parents
    assert mounts["configuration"] in configuration["module"].parents


def test_tls_names_options_that_there_are() -> None:
    variables = {option.variable for option in options()}
    named = container("tls")["env"]
    assert [each["name"] for each in named if each["name"] not in variables] == []
    mounts = {mount["mountPath"] for mount in container("tls")["volumeMounts"]}
    of_tls = [each for each in named if each not in container()["env"]]
    assert len(of_tls) == 3
    assert {str(Path(each["value"]).parent) for each in of_tls} <= mounts


def grace_s() -> int:
    seconds: int = pod()["spec"]["terminationGracePeriodSeconds"]
    return seconds


def test_a_pod_has_time_to_drain() -> None:
    assert grace_s() >= container()["lifecycle"]["preStop"]["sleep"]["seconds"] + DRAIN_S


def test_an_agent_that_hangs_is_killed_within_10_s() -> None:
    probe = container()["livenessProbe"]
    found_s = 3 * probe["periodSeconds"] + probe["timeoutSeconds"]  # three times, by default
    assert found_s + probe.get("terminationGracePeriodSeconds", grace_s()) <= 10


def test_the_autoscaler_asks_for_what_the_adapter_makes_of_the_agents_metrics(tmp_path: Path) -> None:
    [metric] = rendered("base")["HorizontalPodAutoscaler/sentinel-wasm-agent"]["spec"]["metrics"]
    [rule] = ADAPTER["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    series, labels = re.fullmatch(r"(\w+)\{(.*)\}", rule["seriesQuery"]).groups()  # type: ignore[union-attr]
    assert family(series).kind == "counter"
    [job] = yaml.safe_load(SCRAPING)["scrape_configs"]
    assert f'job="{job["job_name"]}"' in labels
    set_by_scraping = set(values(job, "target_label"))
    assert set(rule["resources"]["overrides"]) == set_by_scraping == set(re.findall(r'(\w+)!=""', labels))
    query = rule["metricsQuery"]
    for placeholder, text in {"Series": series, "LabelMatchers": 'pod=~"a|b"', "GroupBy": "pod"}.items():
        query = query.replace(f"<<.{placeholder}>>", text)
    rules = {"groups": [{"name": "adapter", "rules": [{"record": "busy", "expr": query}]}]}
    (tmp_path / "rules.yml").write_bytes(orjson.dumps(rules))
    promtool("check", "rules", tmp_path / "rules.yml")


def test_prometheus_takes_the_scrape_configuration(tmp_path: Path) -> None:
    """But for the discovery: Debian's Prometheus is built without Kubernetes'."""
    here = 'static_configs: [{targets: ["a:9100"]}]\n'
    text = SCRAPING.replace("kubernetes_sd_configs:\n      - role: pod\n", here)
    assert text != SCRAPING
    (tmp_path / "prometheus.yml").write_text(text)
    promtool("check", "config", tmp_path / "prometheus.yml")
    labels = pod()["metadata"]["labels"]
    [label] = labels.items()
    ports = [port["name"] for port in container()["ports"]]
    [job] = yaml.safe_load(SCRAPING)["scrape_configs"]
    kept = next(rule for rule in job["relabel_configs"] if rule.get("action") == "keep")
    of_label = "__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", label[0])
    assert kept["source_labels"] == [of_label, "__meta_kubernetes_pod_container_port_name"]
    assert [port for port in ports if re.fullmatch(kept["regex"], f"{label[1]}/{port}")] == ["metrics"]
