"""Hypothesis with more examples, for all of which a test's fixtures are the same."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

STEADY = settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
