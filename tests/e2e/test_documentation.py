"""docs/proxies.md says what these tests show. Needs no proxy, so it runs with `make test` too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..conftest import ROOT
from .proxy import SENTINEL, ZENTINEL, ProxyKind

PAGE = (ROOT / "docs" / "proxies.md").read_text()


@pytest.mark.parametrize("kind", [ZENTINEL, SENTINEL], ids=lambda kind: kind.name)
def test_page_shows_the_configuration_that_the_tests_run(kind: ProxyKind) -> None:
    assert f"```kdl\n{kind.configuration()}```" in PAGE


def test_page_names_tests_that_exist() -> None:
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named
    assert {name for name in named if f"def {name}(" not in sources} == set()


def test_page_names_every_test_of_a_proxy() -> None:
    for name in ("test_both_proxies.py", "test_zentinel.py", "test_sentinel.py", "test_reports.py"):
        tests = set(re.findall(r"^def (test_\w+)", (Path(__file__).parent / name).read_text(), re.MULTILINE))
        assert {test for test in tests if f"`{test}`" not in PAGE} == set()
