"""zentinel 0.6.45 with its agent behind gRPC."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import BuildWat, RunningAgent, StartAgent
from ..scraping import LOCAL, Scraped
from ..upgrading import Upgrading
from ..wat import module
from .conftest import SECURITY
from .modules import BLOCKS_BODIES
from .proxy import ZENTINEL, RunningProxy, free_port, start_proxy
from .upstream import Upstream

pytestmark = [pytest.mark.e2e, pytest.mark.parallel]

REPLACES_BODIES = module(
    on_response_headers='{"decision":"allow","add_response_headers":{"X-Seen":"yes"}}',
    on_response_body=(
        '{"decision":"allow","response_body_mutation":{"action":"replace","data":"o","chunk_index":0}}'
    ),
)


@contextlib.contextmanager
def stack(
    start_agent: StartAgent, module: Path, upstream: Upstream, directory: Path
) -> Iterator[tuple[RunningAgent, RunningProxy]]:
    """An agent, and a proxy that knows its port only."""
    ZENTINEL.binary()  # skips before anything starts
    port = free_port()
    agent = start_agent(module, "--grpc", f":{port}", *LOCAL)
    over_grpc = {'unix-socket "/tmp/sentinel-wasm.sock"': f'grpc "http://127.0.0.1:{port}"'}
    proxy = start_proxy(ZENTINEL, directory, upstream.port, Path("/nowhere"), over_grpc)
    try:
        yield agent, proxy
    finally:
        proxy.kill()


def test_requests_and_bodies_are_decided_on(
    start_agent: StartAgent, upstream: Upstream, tmp_path: Path
) -> None:
    with stack(start_agent, SECURITY, upstream, tmp_path) as (agent, proxy):
        reply = proxy.get("/shop?item=1")
        assert reply.status == 200
        assert reply.seen_by_upstream["path"] == "/shop?item=1"
        assert proxy.get("/", {"User-Agent": "sqlmap/1.7"}).status == 403
        assert proxy.post("/comments", '{"comment": "hello"}').status == 200
        assert proxy.post("/comments", '{"comment": "<script>"}').status == 403
        page = Scraped(agent)
        assert page.value("connections_open", protocol="grpc") == 4
        assert page.value("errors_total", kind="event") == 0


def test_a_body_that_cannot_be_replaced_passes_and_is_counted(
    start_agent: StartAgent, build_wat: BuildWat, upstream: Upstream, tmp_path: Path
) -> None:
    with stack(start_agent, build_wat(REPLACES_BODIES), upstream, tmp_path) as (agent, proxy):
        reply = proxy.get("/shop")
        assert reply.headers["X-Seen"] == "yes"
        assert reply.seen_by_upstream["path"] == "/shop"
        assert Scraped(agent).value("grpc_dropped_total", part="response_body_mutation") > 0


def test_a_blocked_response_body_passes(
    start_agent: StartAgent, build_wat: BuildWat, upstream: Upstream, tmp_path: Path
) -> None:
    """The proxy acts on no block there, and what keeps the body back over a Unix socket is a mutation."""
    with stack(start_agent, build_wat(BLOCKS_BODIES), upstream, tmp_path) as (_, proxy):
        assert proxy.get("/secret").seen_by_upstream["path"] == "/secret"


def test_zentinel_does_not_come_back_over_grpc(
    start_agent: StartAgent, upstream: Upstream, tmp_path: Path
) -> None:
    """Watched by hand for 20 s: as over a Unix socket that was cut."""
    with stack(start_agent, SECURITY, upstream, tmp_path) as (agent, proxy), Upgrading(agent) as upgrading:
        assert proxy.get("/").status == 200
        upgrading.upgrade()
        for _ in range(10):
            assert proxy.get("/").status in (503, 504)
            time.sleep(0.1)
