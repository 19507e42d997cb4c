"""Says what machine the figures are of."""

from __future__ import annotations

from sentinel_wasm.bench.machine import this_machine


def pytest_report_header() -> str:
    return f"machine: {this_machine()}"
