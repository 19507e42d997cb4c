"""What is in deploy/ holds what docs/security.md says of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT

pytestmark = pytest.mark.parallel

UNIT = ROOT / "deploy" / "sentinel-wasm-agent.service"
MOST_EXPOSED = 1.0  # of 10; systemd calls less than 2 safe


def test_the_unit_is_hardened() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.fail("systemd-analyze is missing; install: apt-get install systemd")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    report = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", report.stdout)
    assert found, report.stdout + report.stderr
    assert float(found[1]) <= MOST_EXPOSED, report.stdout


def test_the_unit_is_one_to_systemd(tmp_path: Path) -> None:
    """With a program that is there: that of the agent is not installed where the tests run."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/sentinel-wasm/bin/sentinel-wasm-agent", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    report = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert UNIT.name not in report.stderr, report.stderr


def test_the_unit_has_the_memory_that_the_security_page_says() -> None:
    [most] = re.findall(r"^MemoryMax=(\d+)M$", UNIT.read_text(), re.MULTILINE)
    assert f" {most} MiB of memory " in (ROOT / "docs" / "security.md").read_text()


@pytest.mark.parametrize(
    "line",
    [
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "RestrictAddressFamilies=AF_UNIX",
        "Type=notify",
        "NotifyAccess=all",
        "WatchdogSec=10",
        "FileDescriptorStoreMax=511",
        "CapabilityBoundingSet=",
        "CacheDirectory=sentinel-wasm",
        "CacheDirectoryMode=0700",
    ],
)
def test_the_unit_keeps_what_the_security_page_promises(line: str) -> None:
    assert line in UNIT.read_text().splitlines()
