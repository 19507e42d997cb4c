"""What the targets keep between inputs ends with their tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from . import serving


@pytest.fixture(scope="package", autouse=True)
def modules_end() -> Iterator[None]:
    """At its end the interpreter may not free them, which the sanitizers call a leak."""
    yield
    serving.agent.cache_clear()
    serving.module.cache_clear()
    gc.collect()
