"""Hypothesis on a machine that others use too: no time limit on one example, and more of them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

STEADY = settings(
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
