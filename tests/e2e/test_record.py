"""Traffic of the real proxies through a tap, and again at another module."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from ..conftest import BuildWat, StartAgent
from ..tapping import RunningTap, run_here
from ..test_call import PATIENT
from ..wat import module
from .conftest import SECURITY
from .proxy import SENTINEL, ZENTINEL, ProxyKind, start_proxy
from .upstream import MASKED_BODY, Upstream

pytestmark = [pytest.mark.e2e, pytest.mark.parallel]


@pytest.mark.parametrize(("kind", "events"), [(ZENTINEL, 8), (SENTINEL, 4)], ids=["zentinel", "sentinel"])
def test_traffic_is_recorded_and_played_at_another_module(
    kind: ProxyKind,
    events: int,
    upstream: Upstream,
    start_agent: StartAgent,
    build_wat: BuildWat,
    tmp_path: Path,
) -> None:
    kind.binary()
    agent = start_agent(SECURITY)
    with RunningTap(agent.socket, tmp_path / "traffic.swr") as tap:
        proxy = start_proxy(kind, tmp_path, upstream.port, tap.socket, {})
        try:
            card = proxy.get("/card")
            assert card.status == 200
            assert (card.body == MASKED_BODY) is (kind is ZENTINEL)  # v1 has no response events
            assert proxy.get("/admin", {"Authorization": "Bearer s3cret"}).status == 200
            # The last: after a block, the v1 proxy may panic by itself (an overflow in its coordinator.rs).
            assert proxy.post("/comments", '{"comment": "<script>"}').status == 403
        finally:
            proxy.kill()
        assert tap.stop() == 0
    assert ", 0 not understood" in tap.summary
    assert len(tap.lines) == events
    assert b"s3cret" not in tap.file.read_bytes()

    same = run_here("replay", tap.file, SECURITY, *PATIENT)
    assert (same.returncode, same.stderr) == (0, "")
    assert same.stdout.startswith(f"{events} played: {events} same, 0 differ, 0 failed; ")

    lax = build_wat(module(on_request_headers='{"decision":"allow"}'))
    done = run_here("replay", tap.file, lax, "--json", *PATIENT)
    assert done.returncode == 1
    *found, _ = map(orjson.loads, done.stdout.splitlines())
    let_through = [
        one["request"]
        for one in found
        if {"name": "decision", "expected": "block", "found": "allow"} in one["differences"]
    ]
    assert let_through == ["POST /comments"]
