"""The pod of deploy/kubernetes/sidecar: its proxy's configuration, and what kubelet sees of a lost agent."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ..conftest import ROOT, StartAgent
from .conftest import SECURITY
from .proxy import ZENTINEL, RunningProxy, free_port
from .upstream import Upstream

pytestmark = [pytest.mark.e2e, pytest.mark.parallel]

CONFIGURATION = ROOT / "deploy" / "kubernetes" / "sidecar" / "zentinel.kdl"


def test_probe_fails_while_the_proxy_has_lost_its_agent_and_passes_once_the_proxy_is_restarted(
    upstream: Upstream, start_agent: StartAgent, tmp_path: Path
) -> None:
    binary = ZENTINEL.binary()
    admin = f"127.0.0.1:{free_port()}"
    agent = start_agent(SECURITY, "--admin", admin)
    port = free_port()
    configuration = CONFIGURATION.read_text()
    for old, new in {
        "0.0.0.0:8080": f"127.0.0.1:{port}",
        "backend:3000": f"127.0.0.1:{upstream.port}",
        "127.0.0.1:9100": admin,
        "/run/sentinel-wasm/agent.sock": str(agent.socket),
        "timeout-ms 50": "timeout-ms 1000",
    }.items():
        assert configuration.count(old) == 1, old
        configuration = configuration.replace(old, new)
    (tmp_path / "zentinel.kdl").write_text(configuration)

    proxy = RunningProxy(binary, tmp_path / "zentinel.kdl", port)
    try:
        assert proxy.get("/healthz").status == 200
        assert proxy.get("/other").seen_by_upstream["path"] == "/other"
        agent.stop(signal.SIGKILL)
        assert proxy.get("/healthz").status in (503, 504)
        start_agent(SECURITY, "--admin", admin, socket=agent.socket)
        assert proxy.get("/healthz").status in (503, 504)
    finally:
        proxy.kill()

    proxy = RunningProxy(binary, tmp_path / "zentinel.kdl", port)
    try:
        assert proxy.get("/healthz").status == 200
    finally:
        proxy.kill()
