"""What zentinel 0.6.45 makes of the frames that the agent sends by itself: MetricsReport and HealthStatus."""

from __future__ import annotations

import contextlib
import time
import urllib.request
from pathlib import Path

import orjson
import pytest

from sentinel_wasm.client import Client, request_headers
from sentinel_wasm.protocol.events import EventKind

from ..conftest import BuildWat, StartAgent
from ..scraping import LOCAL, Scraped
from .conftest import StartStack
from .modules import TRAPS_ON_TRAP
from .proxy import ZENTINEL, free_port, start_proxy
from .upstream import Upstream

pytestmark = [pytest.mark.e2e, pytest.mark.parallel]


def test_metrics_reports_do_not_disturb_the_proxy(start_stack: StartStack) -> None:
    """It takes them and shows them nowhere; its connections stay."""
    port = free_port()
    shown = f'metrics {{\n        enabled #true\n        address "127.0.0.1:{port}"'
    changes = {"metrics {\n        enabled #false": shown}
    stack = start_stack(ZENTINEL, *LOCAL, "--workers", "2", changes=changes)
    # The agent takes this process for another proxy; its connections go to a worker each.
    with stack.agent.v2() as one, stack.agent.v2() as other:
        readers = [one, other]
        labels = set()
        for reader in readers:
            reader.sock.settimeout(0.2)
        end = time.monotonic() + 60
        while readers:
            assert stack.proxy.get("/shop").status == 200
            assert time.monotonic() < end
            with contextlib.suppress(TimeoutError):
                report = orjson.loads(Client.receive(readers[0]))
                labels |= {counter["labels"]["worker"] for counter in report["counters"]}
                del readers[0]
        assert labels == {"1", "2"}
        # Each worker has sent one to the proxy, too.
        while Scraped(stack.agent).value("reports_sent_total") < 4:
            assert time.monotonic() < end
        for _ in range(20):
            assert stack.proxy.get("/shop").status == 200
        page = Scraped(stack.agent)
        assert page.by("protocol", "connections_open") == {"v2": 6}
        assert page.value("connections_accepted_total") == 6
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        of_the_proxy = answer.read().decode()
    assert "zentinel_requests_total" in of_the_proxy
    assert "sentinel_wasm_" not in of_the_proxy


def test_a_proxy_that_finds_an_unhealthy_agent_uses_it(
    upstream: Upstream, start_agent: StartAgent, build_wat: BuildWat, tmp_path: Path
) -> None:
    """HealthStatus comes right behind the handshake's answer."""
    ZENTINEL.binary()
    agent = start_agent(build_wat(TRAPS_ON_TRAP), *LOCAL, "--pool-size", "1")
    with agent.v2() as client:
        end = time.monotonic() + 20
        while not Scraped(agent).value("module_unhealthy"):
            assert time.monotonic() < end
            client.ask(EventKind.REQUEST_HEADERS, request_headers("bad", uri="/trap"))
    proxy = start_proxy(ZENTINEL, tmp_path, upstream.port, agent.socket, {})
    try:
        end = time.monotonic() + 20
        while proxy.get("/").status != 200:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert Scraped(agent).by("protocol", "connections_open") == {"v2": 4}
    finally:
        proxy.kill()
