"""The image and the pod of deploy/ ask only for what the agent has, and fit each other.

What needs a builder, or Kubernetes' schemas, is checked by `make container-steps` and `make lint-deploy`.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from ci.container_steps import DOCKERFILE, instructions, parts
from sentinel_wasm import settings
from sentinel_wasm.cli.agent import command

from .conftest import ROOT

pytestmark = pytest.mark.parallel

SIDECAR = ROOT / "deploy" / "kubernetes" / "sidecar"
IMAGE = instructions(DOCKERFILE.read_text())
VARIABLES = {option.variable for option in settings.options()}
FLAGS = {flag for parameter in command().params for flag in parameter.opts}


def given(name: str) -> str:
    """What the image's last stage gives this instruction."""
    return next(text for instruction, text in reversed(IMAGE) if instruction == name)


ENVIRONMENT = parts(given("ENV"))


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((SIDECAR / "deployment.yaml").read_text())
    template: dict[str, Any] = spec["spec"]["template"]["spec"]
    return template


AGENT = pod()["initContainers"][0]
PROXY = pod()["containers"][0]


def test_instructions_of_a_dockerfile() -> None:
    text = "# syntax\nFROM a AS b\n# why\nRUN one && \\\n    two\n\nUSER 1:2\n"
    assert instructions(text) == [("FROM", "a AS b"), ("RUN", "one &&      two"), ("USER", "1:2")]


def test_the_image_runs_the_agent_as_a_user_without_rights() -> None:
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", given("USER"))
    program = '["/opt/sentinel-wasm/bin/sentinel-wasm-agent"'
    assert given("ENTRYPOINT") == f"{program}]"
    assert given("HEALTHCHECK").endswith(f'CMD {program}, "--check-health"]')
    assert "--check-health" in FLAGS


def test_every_variable_is_an_option() -> None:
    assert ENVIRONMENT.keys() <= VARIABLES
    assert {variable["name"] for variable in AGENT["env"]} <= VARIABLES
    assert set(AGENT["args"]) <= FLAGS


def test_the_pod_is_restricted() -> None:
    spec = pod()
    user, group = map(int, given("USER").split(":"))
    context = spec["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, user, group)
    assert spec["automountServiceAccountToken"] is False
    for container in (AGENT, PROXY):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_agent_is_a_sidecar_that_starts_first() -> None:
    assert AGENT["restartPolicy"] == "Always"
    assert AGENT["startupProbe"]["httpGet"]["path"] == "/healthz"


def test_agent_and_proxy_meet_at_the_socket_and_at_the_admin_address() -> None:
    proxy = (SIDECAR / "zentinel.kdl").read_text()
    assert f'unix-socket "{ENVIRONMENT["AGENT_SOCKET"]}"' in proxy
    directory = ENVIRONMENT["AGENT_SOCKET"].rpartition("/")[0]
    for container in (AGENT, PROXY):
        assert {"name": "socket", "mountPath": directory} in container["volumeMounts"]
    variables = {variable["name"]: variable["value"] for variable in AGENT["env"]}
    port = settings.parse_address(variables["WASM_ADMIN"]).port
    assert f'target "127.0.0.1:{port}"' in proxy
    assert {"name": "metrics", "containerPort": port} in AGENT["ports"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert f'path "{PROXY[probe]["httpGet"]["path"]}"' in proxy


def test_the_module_is_a_directory_that_kubelet_keeps_up_to_date() -> None:
    (mount,) = (mount for mount in AGENT["volumeMounts"] if mount["name"] == "module")
    assert mount == {"name": "module", "mountPath": "/module", "readOnly": True}
    assert ENVIRONMENT["WASM_MODULE"] == "/module/filter.wasm"
    assert "--watch" in AGENT["args"]
