"""What an agent adds behind the real proxy can be measured; what it is, no test says: machines differ."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from ..conftest import ROOT
from .proxy import ZENTINEL


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.behind_proxy", "--rounds", "1", "--seconds", "1"],
        cwd=ROOT,
        env={**os.environ, "PEER_V2_BIN": "/no/such/agent", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.e2e
def test_requests_without_an_agent_and_with_ours_are_measured() -> None:
    if shutil.which("wrk") is None:
        pytest.skip("no wrk: apt-get install wrk")
    done = run(ZENTINEL_BIN=str(ZENTINEL.binary()))
    assert done.returncode == 0, done.stderr
    assert "without the Rust v2 agent: there is no /no/such/agent" in done.stderr
    rows = re.findall(r"^(none|sentinel-wasm) +([\d,]+) +(\d+) +(\d+) +(-?\d+)$", done.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == ["none", "sentinel-wasm"]
    for _, requests, p50, p99, _ in rows:
        assert int(requests.replace(",", "")) > 100
        assert 0 < int(p50) <= int(p99)


def test_where_the_proxy_is_missing_it_says_so() -> None:
    done = run(ZENTINEL_BIN="/no/such/proxy")
    assert done.returncode == 0, done.stderr
    assert "nothing measured: it takes wrk" in done.stderr
