"""MetricsReport frames, to each v2 proxy from time to time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping

import structlog

from sentinel_wasm.protocol import metrics_report
from sentinel_wasm.server.connection import Connection
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.server.status import Status

# Prometheus is seldom asked to scrape more often, and the proxy forgets a series after 5 minutes.
INTERVAL_S = 10.0
_LOOKED_AT_ONCE = 32  # connections; to see whose one is takes 9 µs

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
    """One to each proxy: it opens several connections, and keeps one set of numbers for all.

    Between steps events have their turn: no step takes long, however many proxies there are.
    """
    proxies = await _one_of_each(serving.connections)
    if not proxies and (serving.grpc is None or not serving.grpc.streams):
        return
    samples = status.samples()
    await asyncio.sleep(0)
    report = metrics_report.report(samples, time.time_ns() // 1_000_000, int(INTERVAL_S * 1000), labels)
    if serving.grpc is not None:
        serving.reports_sent += serving.grpc.send_metrics(report)
    frame = metrics_report.frame(report)
    for connection in proxies:
        await asyncio.sleep(0)
        if connection.takes_reports:
            connection.write(frame)
            serving.reports_sent += 1


async def _one_of_each(connections: Iterable[Connection]) -> list[Connection]:
    """A connection of each proxy; all of those whose process cannot be seen, as in another container."""
    found: dict[object, Connection] = {}
    for number, connection in enumerate(list(connections)):
        if number % _LOOKED_AT_ONCE == 0:
            await asyncio.sleep(0)
        if connection.takes_reports:
            found.setdefault(connection.peer or connection, connection)
    return list(found.values())
