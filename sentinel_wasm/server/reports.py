"""MetricsReport frames, to each v2 proxy from time to time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import structlog

from sentinel_wasm.protocol import metrics_report
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.server.status import Status

# Prometheus is seldom asked to scrape more often, and the proxy forgets a series after 5 minutes.
INTERVAL_S = 10.0

_log = structlog.stdlib.get_logger("reports")


async def send_reports(serving: Serving, status: Status, labels: Mapping[str, str]) -> None:
    """Without end; `labels` tell this process's numbers from those of others of the same agent."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        try:
            await _send(serving, status, labels)
        except Exception as defect:
            _log.error("internal error, please report it", exc_info=defect)


async def _send(serving: Serving, status: Status, labels: Mapping[str, str]) -> None:
    """One to each proxy: it opens several connections, and keeps one set of numbers for all."""
    frame = b""
    told = set()
    for connection in list(serving.connections):
        if not connection.takes_reports or connection.peer in told:
            continue
        # A process that cannot be seen from here, as in another container, has no number: all get it.
        if connection.peer:
            told.add(connection.peer)
        frame = frame or metrics_report.frame(
            status.samples(), time.time_ns() // 1_000_000, int(INTERVAL_S * 1000), labels
        )
        connection.write(frame)
        await asyncio.sleep(0)  # events first, however many proxies there are
