"""The C SDK's own tests, on this machine's compiler."""

from __future__ import annotations

import subprocess

import pytest

from .conftest import EXAMPLES

pytestmark = pytest.mark.parallel


def test_the_header_passes_its_tests_under_sanitizers() -> None:
    done = subprocess.run([EXAMPLES / "sdk" / "c" / "test.sh"], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
